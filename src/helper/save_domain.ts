/** `--save-domain`: writes the guest as a stream and has libxl suspend it for the end of it, or for all of it. */
import { refuseDeviceModel } from '../domain/hvm.js';
import type { Progress } from '../domain/progress.js';
import { openXenHost } from '../host/xen/host.js';
import { encodingLanes, warmWorkers } from '../worker/pool.js';
import type { SaveArguments } from './arguments.js';
import { type LibxlChannel, logLevel } from './channel.js';
import { streamDomain } from '../transfer/send.js';

/** In the words of xl's own helper, which counts the passes over a running guest. */
function reportFrames(channel: LibxlChannel, live: boolean): (progress: Progress) => void {
  let [pass, before] = [0, 0];
  return ({ donePages, totalPages }) => {
    if (donePages < before) ++pass;
    before = donePages;
    channel.progress(live ? `Frames iteration ${pass}` : 'Frames', donePages, totalPages);
  };
}

/** libxl resumes or destroys the guest afterwards, as the result says. LOCKED, HOST_LACKS of an HVM guest, and streamDomain's. */
export async function saveDomain(
  { domid, streamFd, live, format }: SaveArguments,
  channel: LibxlChannel,
  signal: AbortSignal,
): Promise<void> {
  const host = await openXenHost({ notice: (line) => channel.log(logLevel.warn, line) });
  try {
    const info = await host.info(domid);
    refuseDeviceModel(info);
    const isPv = info.type === 'pv';
    channel.log(logLevel.detail, `fd ${streamFd}, dom ${domid}, live ${Number(live)}, hvm ${Number(!isPv)}`);
    channel.log(logLevel.info, `Saving domain ${domid}, type ${isPv ? 'x86 PV' : 'x86 HVM'}`);
    const lease = await host.acquire(domid, 'save');
    await warmWorkers(encodingLanes);
    await streamDomain({
      ...{ host, lease, info, fd: streamFd, format, live },
      suspend: () => channel.suspend(),
      options: { signal, onProgress: reportFrames(channel, live) },
    });
    channel.progress('End of stream', 0, 0);
  } finally {
    // Ends the lease too: what is mapped must be gone before libxl destroys the domain.
    await host.close();
  }
}

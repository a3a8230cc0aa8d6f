/** `--save-domain`: writes the guest as a stream and has libxl suspend it for the end of it, or for all of it. */
import { openXenHost } from '../host/xen/host.js';
import { warmWorkers } from '../worker/pool.js';
import type { SaveArguments } from './arguments.js';
import { type LibxlChannel, logLevel } from './channel.js';
import { streamDomain } from './stream_save.js';

/** libxl resumes or destroys the guest afterwards, as the result says. LOCKED, and streamDomain's. */
export async function saveDomain(
  { domid, streamFd, live, format }: SaveArguments,
  channel: LibxlChannel,
  signal: AbortSignal,
): Promise<void> {
  const host = await openXenHost({ notice: (line) => channel.log(logLevel.warn, line) });
  try {
    const info = await host.find(String(domid));
    channel.log(logLevel.info, `Saving domain ${domid}, type ${info.type === 'pv' ? 'x86 PV' : 'x86 HVM'}`);
    const lease = await host.acquire(domid, 'save');
    await warmWorkers();
    await streamDomain({
      ...{ host, lease, info, fd: streamFd, format, live },
      suspend: () => channel.suspend(),
      options: {
        signal,
        onProgress: ({ donePages, totalPages }) => channel.progress('Frames', donePages, totalPages),
      },
    });
  } finally {
    // Ends the lease too: what is mapped must be gone before libxl destroys the domain.
    await host.close();
  }
}

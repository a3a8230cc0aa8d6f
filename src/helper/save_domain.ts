/** `--save-domain`: has libxl suspend the guest and writes it in the stock format. */
import { openXenHost } from '../host/xen/host.js';
import { warmWorkers } from '../worker/pool.js';
import type { SaveArguments } from './arguments.js';
import { type LibxlChannel, logLevel } from './channel.js';
import { writeLibxcStream } from './stream_save.js';

/** libxl resumes or destroys the guest afterwards, as the result says. SUSPEND_TIMEOUT, and writeLibxcStream's. */
export async function saveDomain(
  { domid, streamFd }: SaveArguments,
  channel: LibxlChannel,
  signal: AbortSignal,
): Promise<void> {
  const host = await openXenHost({ notice: (line) => channel.log(logLevel.warn, line) });
  try {
    const info = await host.find(String(domid));
    channel.log(logLevel.info, `Saving domain ${domid}, type ${info.type === 'pv' ? 'x86 PV' : 'x86 HVM'}`);
    const memory = await host.openMemory(domid);
    try {
      await warmWorkers();
      await channel.suspend();
      memory.refresh?.();
      const [geometry, state] = [await host.geometry(domid), await host.readState(domid)];
      await writeLibxcStream({ info, geometry, memory, state }, streamFd, {
        signal,
        onPages: (done, total) => channel.progress('Frames', done, total),
      });
    } finally {
      memory.close();
    }
  } finally {
    await host.close();
  }
}

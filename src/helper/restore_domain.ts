/** `--restore-domain`: fills the domain libxl has made, from an image named by a job, or from a stream of ours or libxc's. */
import { Buffer } from 'node:buffer';
import { refuseSavedDeviceModel } from '../domain/hvm.js';
import { DormouseError } from '../errors.js';
import { HelperBuilder } from '../host/xen/builder.js';
import { jobMagic, nonceBytes } from '../host/xen/job_wire.js';
import { libxcMarker } from '../xenstream/stream_format.js';
import { ImageReader } from '../image/reader.js';
import { STREAM_MAGIC } from '../xenstream/frames/layout.js';
import { fillDomain, type FillOptions, ProgressOfRestore } from '../restore/fill.js';
import { requireRestorable } from '../restore/pv_guest.js';
import { laneCount, warmWorkers } from '../worker/pool.js';
import type { RestoreArguments } from './arguments.js';
import type { LibxlChannel } from './channel.js';
import { FdSource } from './fd_source.js';
import { JobClient } from './job_client.js';
import { restoreFrames, restoreLibxcStream } from '../transfer/receive.js';
import { streamInvalid } from '../xenstream/frames/byte_reader.js';

const streamMagic = Buffer.from(STREAM_MAGIC, 'hex');

async function fromImage(
  builder: HelperBuilder,
  job: JobClient,
  channel: LibxlChannel,
  signal: AbortSignal,
): Promise<void> {
  const { path, imageId, root, mostPfns } = job.job;
  const reader = await ImageReader.open(path, { lanes: laneCount });
  try {
    if (reader.header.imageId !== imageId || reader.root !== root)
      throw new DormouseError('IMAGE_DAMAGED', `${path} is no longer the image that was checked`);
    requireRestorable(reader);
    channel.say(`Found ${reader.manifest.domain.type} image ${imageId}`);
    channel.say('Restoring domain');
    await warmWorkers();
    const { state } = reader.manifest;
    await channel.staticDataDone(builder.setPolicy(state));
    const options: FillOptions = {
      mostPfns,
      signal,
      onProgress: (progress) => {
        job.report({ kind: 'progress', progress });
        channel.progress('Frames', progress.donePages, progress.totalPages);
      },
    };
    await fillDomain(builder, reader, options, new ProgressOfRestore(reader, options));
  } finally {
    reader.close();
  }
}

/** Fills the domain and tells libxl its rings. Whatever fails, libxl destroys the domain. */
export async function restoreDomain(
  args: RestoreArguments,
  channel: LibxlChannel,
  cancel: AbortController,
): Promise<void> {
  const source = new FdSource(args.streamFd);
  const magic = Buffer.from(await source.peek(jobMagic.length));
  let job: JobClient | undefined;
  let builder: HelperBuilder | undefined;
  try {
    if (magic.equals(jobMagic)) {
      await source.skip(jobMagic.length, 'the magic');
      const nonce = (await source.read(nonceBytes, 'the nonce')).toString('hex');
      job = await JobClient.take(nonce, args.domid, cancel);
    } else if (!magic.equals(libxcMarker) && !magic.equals(streamMagic))
      throw streamInvalid('neither a stream of dormouse or libxc nor a job', 0);
    builder = HelperBuilder.open(args.domid, args);
    refuseSavedDeviceModel({ name: `domain ${args.domid}`, type: builder.type });
    if (job) await fromImage(builder, job, channel, cancel.signal);
    else {
      const restore = magic.equals(streamMagic) ? restoreFrames : restoreLibxcStream;
      await restore({ builder, source, receiver: channel, signal: cancel.signal });
    }
    const { store, console } = builder.rings;
    builder.close();
    channel.say('Restore successful');
    for (const [what, frame, dom, port] of [
      ['XenStore', store, args.storeDomid, args.storePort],
      ['Console', console, args.consoleDomid, args.consolePort],
    ] as const)
      channel.say(`${what}: mfn 0x${frame.toString(16)}, dom ${dom}, evt ${port}`);
    channel.restoreResults(store, console);
    job?.report({ kind: 'built' });
  } catch (thrown) {
    job?.fail(thrown);
    throw thrown;
  } finally {
    builder?.close();
    await job?.close();
  }
}

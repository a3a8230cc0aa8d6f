/** `--save-domain`: the guest as a libxc v3 stream, as stock Xen writes it. */
import { Buffer } from 'node:buffer';
import { canonicalState } from '../capture/write_image.js';
import { openXenHost, type XenHost } from '../host/xen/host.js';
import type { DomainInfo, MemoryView } from '../host/contract.js';
import { standardStream } from '../image/convert/standard_stream.js';
import { libxcHead, paddedRecord, stateBody, vcpuBody } from '../image/convert/stream_writer.js';
import { pagesPerStep, runOverRange, warmWorkers } from '../worker/pool.js';
import type { SaveArguments } from './arguments.js';
import { type LibxlChannel, logLevel, writeWhole } from './channel.js';

interface Work {
  readonly host: XenHost;
  readonly info: DomainInfo;
  readonly memory: MemoryView;
  readonly fd: number;
  readonly channel: LibxlChannel;
  readonly signal: AbortSignal;
}

async function writePages(work: Work, nrPfns: number): Promise<void> {
  const { fd, memory, channel, signal } = work;
  let done = 0;
  await runOverRange({
    total: nrPfns,
    stride: pagesPerStep,
    signal,
    task: (lane, first, count) => ({ step: 'stream', memory: memory.handle, fd, lane, first, count }),
    done: (count) => {
      done += count;
      channel.progress('Frames', done, nrPfns);
    },
  });
}

/** The whole libxc stream of a guest that stands still. */
async function writeStream(work: Work): Promise<void> {
  const { host, info, memory, fd } = work;
  const geometry = await host.geometry(info.domid);
  const canonical = canonicalState({ info, memory, state: await host.readState(info.domid) });
  const guest = {
    domain: { ...info, config: '' },
    geometry: { ...geometry, p2mFrames: [...geometry.p2mFrames] },
    state: { ...canonical, vcpus: [...canonical.vcpus] },
  };
  const stream = standardStream(guest);
  writeWhole(fd, libxcHead(stream));
  for (const item of stream.items) {
    if (item.kind === 'pages') await writePages(work, geometry.nrPfns);
    else if (item.kind === 'state') writeRecord(fd, item.type, stateBody(guest, item.type));
    else if (item.kind === 'vcpu') writeRecord(fd, item.type, vcpuBody(guest, item));
    else if (item.layer === 'libxc') writeRecord(fd, item.type, item.body);
  }
}

function writeRecord(fd: number, type: number, body: Buffer): void {
  writeWhole(fd, Buffer.concat(paddedRecord(type, body)));
}

/** Suspends the guest through libxl and writes it; libxl resumes or destroys it afterwards, as the result says. */
export async function saveDomain(
  { domid, streamFd: fd }: SaveArguments,
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
      await writeStream({ host, info, memory, fd, channel, signal });
    } finally {
      memory.close();
    }
  } finally {
    await host.close();
  }
}

/** A guest that stands still, as the libxc v3 stream that stock Xen would write of it. */
import { Buffer } from 'node:buffer';
import { canonicalState, type CaptureSource } from '../capture/write_image.js';
import { standardStream } from '../image/convert/standard_stream.js';
import { libxcHead, paddedRecord, stateBody, vcpuBody } from '../image/convert/stream_writer.js';
import { pagesPerStep, runOverRange } from '../worker/pool.js';
import { writeWhole } from './channel.js';

export type StreamSource = Pick<CaptureSource, 'info' | 'geometry' | 'memory' | 'state'>;

export interface StreamOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onPages?: (done: number, total: number) => void;
}

async function writePages(source: StreamSource, fd: number, options: StreamOptions): Promise<void> {
  const { memory, geometry } = source;
  const total = geometry.nrPfns;
  let done = 0;
  await runOverRange({
    total,
    stride: pagesPerStep,
    signal: options.signal,
    task: (lane, first, count) => ({ step: 'stream', memory: memory.handle, fd, lane, first, count }),
    done: (count) => {
      done += count;
      options.onPages?.(done, total);
    },
  });
}

/**
 * Writes the whole stream to a descriptor. IMAGE_NOT_RESTORABLE, PAGE_TABLE_INVALID, GUEST_MEMORY_UNREADABLE, NO_SPACE,
 * IMAGE_WRITE_FAILED, CANCELLED.
 */
export async function writeLibxcStream(
  source: StreamSource,
  fd: number,
  options: StreamOptions = {},
): Promise<void> {
  const { info, geometry } = source;
  const state = canonicalState({ ...source, consistency: 'suspend-point' });
  const guest = {
    domain: { ...info, config: '' },
    geometry: { ...geometry, p2mFrames: [...geometry.p2mFrames] },
    state: { ...state, vcpus: [...state.vcpus] },
  };
  const stream = standardStream(guest);
  const record = (type: number, body: Buffer): void =>
    writeWhole(fd, Buffer.concat(paddedRecord(type, body)));
  writeWhole(fd, libxcHead(stream));
  for (const item of stream.items) {
    if (item.kind === 'pages') await writePages(source, fd, options);
    else if (item.kind === 'state') record(item.type, stateBody(guest, item.type));
    else if (item.kind === 'vcpu') record(item.type, vcpuBody(guest, item));
    else if (item.layer === 'libxc') record(item.type, item.body);
  }
}

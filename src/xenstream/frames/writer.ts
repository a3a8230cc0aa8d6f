/** Writes a domain to a descriptor as it goes: in frames of our own, or the PAGE_DATA records of a libxc stream. */
import type { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { native } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import type { PageCounts } from '../../pfn/counts.js';
import { namedCounts, sameCounts } from '../../image/frame.js';
import type { Manifest } from '../../image/manifest.js';
import { nativeImage } from '../../image/native.js';
import type { PageSink } from '../../image/page_sink.js';
import { encodeStreamHead } from './head.js';
import { FRAME_KINDS } from './layout.js';
import { encodeBegin, encodeEnd, type StreamBegin } from './messages.js';
import { nativePageStream } from './native.js';
import type { WriterHandle } from '../../handle.js';

export type StreamFormat = 'frames' | 'libxc';

export interface StreamOptions {
  readonly format: StreamFormat;
  /** Size of the pfn space: every pfn below it must be put at least once. */
  readonly nrPfns: number;
  /** Threads that may put pages at once; 1 MiB of memory each. */
  readonly lanes: number;
}

export class StreamWriter implements PageSink {
  private constructor(
    readonly handle: WriterHandle,
    /** 16 bytes that every frame of the stream goes with. */
    readonly streamId: Buffer,
  ) {}

  /** The descriptor stays the caller's. NO_MEMORY. */
  static create(fd: number, { format, nrPfns, lanes }: StreamOptions): StreamWriter {
    const id = randomBytes(16);
    const handle = native(() => nativePageStream().create(fd, format === 'libxc', nrPfns, lanes, id));
    return new StreamWriter(handle, id);
  }

  /** What is written before anything else, by the caller. */
  get head(): Buffer {
    return encodeStreamHead(this.streamId);
  }

  /** The first frame. NO_SPACE, IMAGE_WRITE_FAILED. */
  begin(begin: StreamBegin): void {
    this.#put('begin', encodeBegin(begin));
  }

  /** The last frame. ACCOUNTING_MISMATCH if the manifest does not count the pages that were put; NO_SPACE, IMAGE_WRITE_FAILED. */
  end(manifest: Manifest): void {
    this.requireComplete();
    if (!sameCounts(this.counts(), manifest.pages))
      throw new DormouseError('ACCOUNTING_MISMATCH', 'the manifest does not count the pages of the stream');
    this.#put('end', encodeEnd(manifest));
  }

  /** ACCOUNTING_MISMATCH with the first pfn that was never put. */
  requireComplete(): void {
    native(() => nativePageStream().checkComplete(this.handle));
  }

  /** Puts pages from this thread, as ImageWriter.append. */
  append(lane: number, descs: BigUint64Array, bodies: Buffer): void {
    native(() => nativeImage().append(this.handle, lane, descs, bodies));
  }

  counts(): PageCounts {
    return namedCounts(nativePageStream().counts(this.handle).byClass);
  }

  storedBytes(): number {
    return nativePageStream().counts(this.handle).writtenBytes;
  }

  /** Nothing is put any more. */
  release(): void {
    nativePageStream().release(this.handle);
  }

  #put(kind: keyof typeof FRAME_KINDS, body: Buffer): void {
    native(() => nativePageStream().putFrame(this.handle, FRAME_KINDS[kind], body));
  }
}

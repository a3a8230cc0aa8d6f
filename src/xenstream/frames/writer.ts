/** Writes a domain to a descriptor as it goes: in frames of our own, or the PAGE_DATA records of a libxc stream. */
import type { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { native, nativePromise } from '../../addon.js';
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
  /** How long the reader may take nothing before the writing is given up, with IMAGE_WRITE_FAILED. */
  readonly stallMs?: number;
}

/** Longer than a network takes to come back, and than a reader may well need: the guest may stand still meanwhile. */
const defaultStallMs = 120_000;

export class StreamWriter implements PageSink {
  private constructor(
    readonly handle: WriterHandle,
    /** 16 bytes that every frame of the stream goes with. */
    readonly streamId: Buffer,
  ) {}

  /** The descriptor stays the caller's. NO_MEMORY. */
  static create(fd: number, options: StreamOptions): StreamWriter {
    const { format, nrPfns, lanes, stallMs = defaultStallMs } = options;
    const id = randomBytes(16);
    const handle = native(() =>
      nativePageStream().create(fd, format === 'libxc', nrPfns, lanes, id, stallMs),
    );
    return new StreamWriter(handle, id);
  }

  /** Bytes of the caller's own, between the pages. Errors of each call that writes: NO_SPACE, IMAGE_WRITE_FAILED, CANCELLED. */
  async write(bytes: Buffer): Promise<void> {
    await nativePromise(() => nativePageStream().putBytes(this.handle, bytes));
  }

  /** The head of the stream and its first frame. */
  async begin(begin: StreamBegin): Promise<void> {
    await this.write(encodeStreamHead(this.streamId));
    await this.#put('begin', encodeBegin(begin));
  }

  /** What is being written, by any thread, and what would be, ends with CANCELLED. */
  cancel(): void {
    nativePageStream().cancel(this.handle);
  }

  /** The last frame. ACCOUNTING_MISMATCH if the manifest does not count the pages that were put. */
  async end(manifest: Manifest): Promise<void> {
    this.requireComplete();
    if (!sameCounts(this.counts(), manifest.pages))
      throw new DormouseError('ACCOUNTING_MISMATCH', 'the manifest does not count the pages of the stream');
    await this.#put('end', encodeEnd(manifest));
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

  async #put(kind: keyof typeof FRAME_KINDS, body: Buffer): Promise<void> {
    await nativePromise(() => nativePageStream().putFrame(this.handle, FRAME_KINDS[kind], body));
  }
}

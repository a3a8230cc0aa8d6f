/** A new file written front to back, which gets its name only when it is whole. */
import type { Buffer } from 'node:buffer';
import { addon, native } from '../addon.js';
import { hasBody } from '../pfn/page_type.js';
import type { MemoryHandle, OutputHandle, PageFileHandle, ReaderHandle } from '../handle.js';
import { pageBytes, typeOf } from '../pfn/page_words.js';

interface OutputAddon {
  create(path: string, directIo: boolean): OutputHandle;
  write(handle: OutputHandle, bytes: Buffer): void;
  writePages(handle: OutputHandle, memory: MemoryHandle, firstPfn: number, count: number): BigUint64Array;
  pageFile(
    handle: OutputHandle,
    reader: ReaderHandle,
    packed: boolean,
    leafPfns: BigUint64Array,
    lime: boolean,
  ): { file: PageFileHandle; bytes: number };
  /** Writes what is buffered; nothing can be written after it. Returns the descriptor. */
  seal(handle: OutputHandle): number;
  publish(handle: OutputHandle): void;
  close(handle: OutputHandle): void;
}
const outputAddon = (): OutputAddon => addon('output') as OutputAddon;

export class OutputFile {
  #bytes = 0;
  #descriptor: number | null = null;

  private constructor(
    readonly path: string,
    private readonly handle: OutputHandle,
  ) {}

  /**
   * Opens an unnamed file, mode 0600, in the folder of `path`; nothing appears under `path` before publish.
   * Errors: OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE, IMAGE_WRITE_FAILED, NO_MEMORY.
   */
  static create(path: string, directIo: boolean): OutputFile {
    return new OutputFile(
      path,
      native(() => outputAddon().create(path, directIo)),
    );
  }

  /** Bytes written. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes the pieces one after the other; they are free when it returns. NO_SPACE, IMAGE_WRITE_FAILED. */
  write(...pieces: readonly Buffer[]): void {
    for (const piece of pieces) {
      native(() => outputAddon().write(this.handle, piece));
      this.#bytes += piece.length;
    }
  }

  /**
   * Writes those of at most 1024 pages of a memory that have content, as they are. Returns frame and page type
   * (`mfn | type << 60`) of each of the `count`. GUEST_MEMORY_UNREADABLE, NO_SPACE, IMAGE_WRITE_FAILED.
   */
  writePages(memory: MemoryHandle, firstPfn: number, count: number): BigUint64Array {
    const entries = native(() => outputAddon().writePages(this.handle, memory, firstPfn, count));
    for (const entry of entries) if (hasBody(typeOf(entry))) this.#bytes += pageBytes;
    return entries;
  }

  /**
   * The next bytes are for an image's pages: `packed`, those with content one after the other by pfn, else each at its pfn. Steps write them
   * through the handle, which is the caller's to release; pages of zeroes, and those without a frame, are holes. What was written before
   * is whole pages. `leafPfns`: where the guest has its own p2m, which is written as if each pfn had the frame of that number. `lime`, of packed ones: with LiME's headers. NO_SPACE,
   * IMAGE_WRITE_FAILED.
   */
  imagePages(
    reader: ReaderHandle,
    packed: boolean,
    leafPfns: readonly number[],
    lime: boolean,
  ): PageFileHandle {
    const leaves = BigUint64Array.from(leafPfns, BigInt);
    const { file, bytes } = native(() => outputAddon().pageFile(this.handle, reader, packed, leaves, lime));
    this.#bytes += bytes;
    return file;
  }

  /** A path under which this process can read what was written; ends the writing. */
  readBackPath(): string {
    this.#descriptor ??= native(() => outputAddon().seal(this.handle));
    return `/proc/self/fd/${this.#descriptor}`;
  }

  /** Makes the file durable and gives it its name, never replacing another. OUTPUT_EXISTS, NO_SPACE, IMAGE_WRITE_FAILED. */
  publish(): void {
    this.#descriptor ??= native(() => outputAddon().seal(this.handle));
    native(() => outputAddon().publish(this.handle));
  }

  /** Releases the file; without publish nothing is left of it. Idempotent. */
  close(): void {
    native(() => outputAddon().close(this.handle));
  }
}

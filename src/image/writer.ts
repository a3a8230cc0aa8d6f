/** Writes an image: pages go to native lanes, header, manifest, index and footer are laid down here on commit. */
import type { PageCounts } from '../pfn/counts.js';
import type { Consistency } from './format.js';
import type { Manifest } from './manifest.js';

export interface WriterOptions {
  /** Size of the pfn space: every pfn below it must be appended at least once. */
  readonly nrPfns: number;
  /** How many threads may append at once, each in its own lane; at most 5. About 5.2 MiB of memory a lane. */
  readonly lanes: number;
  readonly consistency: Consistency;
  /** The image that pages of class sameAsParent are found in: ids and roots in hex. */
  readonly parent?: { readonly imageId: string; readonly root: string };
  /** Bypass the page cache where the file system can. Default true. */
  readonly directIo?: boolean;
}

export interface CommittedImage {
  readonly path: string;
  /** Size of the file. */
  readonly storedBytes: number;
  /** 32 hex digits. */
  readonly imageId: string;
  /** SHA-256 over header, manifest, index and footer: 64 hex digits. */
  readonly root: string;
}

export class ImageWriter {
  private constructor(
    /** Registry<image::Writer>: valid in every thread of the process until commit or abandon. */
    readonly handle: number,
    /** 32 hex digits. */
    readonly imageId: string,
    readonly path: string,
    private readonly options: WriterOptions,
  ) {}

  /**
   * Opens an unnamed file in the folder of `path`; nothing appears under `path` before commit.
   * Errors: OUTPUT_EXISTS (a file is there), OUTPUT_INVALID (a folder, a symbolic link, no such parent, not
   * writable), NO_SPACE, IMAGE_WRITE_FAILED, NO_MEMORY.
   */
  static async create(path: string, options: WriterOptions): Promise<ImageWriter> {
    await Promise.resolve();
    throw new Error(`being written ${path} ${options.lanes}`);
  }

  /**
   * Appends pages from this thread: `descs` as page_desc() of native/image/writer.h, `bodies` the 4096-byte contents
   * of those whose class has one, in order. A pfn appended again replaces what was there (the last append wins).
   * Errors: NO_SPACE, IMAGE_WRITE_FAILED, ACCOUNTING_MISMATCH (a pfn beyond nrPfns, a class that does not fit the type).
   */
  append(_lane: number, _descs: BigUint64Array, _bodies: Buffer): void {
    throw new Error('being written');
  }

  /** Pages by class as of now; pages that were replaced count once. Cheap. */
  counts(): PageCounts {
    throw new Error('being written');
  }

  /** Bytes of chunks written or waiting in lanes so far. */
  storedBytes(): number {
    throw new Error('being written');
  }

  /**
   * Completes the file, syncs it, and gives it its name, never replacing another. All appends must have returned.
   * Errors: ACCOUNTING_MISMATCH (a pfn never appended, or the manifest's pages differ), OUTPUT_EXISTS (appeared
   * meanwhile), NO_SPACE, IMAGE_WRITE_FAILED. After any of them the image is abandoned.
   */
  async commit(_manifest: Manifest): Promise<CommittedImage> {
    await Promise.resolve();
    throw new Error(`being written ${this.options.nrPfns}`);
  }

  /** Drops everything written; nothing is left of it. Idempotent, and nothing after a commit. */
  async abandon(): Promise<void> {
    await Promise.resolve();
  }
}

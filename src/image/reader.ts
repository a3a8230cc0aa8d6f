/** Opens an image: header, footer, manifest and index are checked here, chunks natively when they are asked for. */
import type { PageCounts } from '../pfn/counts.js';
import type { Consistency, PageClass } from './format.js';
import type { Manifest } from './manifest.js';

export interface ImageHeader {
  readonly major: number;
  readonly minor: number;
  /** 32 hex digits. */
  readonly imageId: string;
  readonly parent: { readonly imageId: string; readonly root: string } | null;
  readonly nrPfns: number;
  readonly consistency: Consistency;
}

/** Where a page is and what it is. `type` is Xen's page type nibble. */
export interface PageEntry {
  readonly pfn: number;
  readonly pageClass: PageClass;
  readonly type: number;
  readonly chunk: number;
  readonly slot: number;
}

export interface PageTableEntry {
  readonly pfn: number;
  readonly level: 1 | 2 | 3 | 4;
  readonly pinned: boolean;
}

/** One chunk as the chunk table has it; `offset` and `span` in bytes of the file. */
export interface ChunkEntry {
  readonly offset: number;
  readonly span: number;
  readonly pages: number;
  readonly bodies: number;
}

export class ImageReader {
  private constructor(
    /** Registry<image::Reader>: valid in every thread of the process until close(). */
    readonly handle: number,
    readonly path: string,
    readonly header: ImageHeader,
    readonly manifest: Manifest,
    readonly counts: PageCounts,
    /** SHA-256 over header, manifest, index and footer: 64 hex digits. */
    readonly root: string,
    readonly nrChunks: number,
    /** Size of the file in bytes. */
    readonly storedBytes: number,
  ) {}

  /**
   * Reads and checks everything but the chunks' bytes. `lanes`: how many threads may read chunks at once (about 2.1 MiB
   * of memory each). Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE, NO_MEMORY.
   */
  static async open(path: string, options: { readonly lanes: number }): Promise<ImageReader> {
    await Promise.resolve();
    throw new Error(`being written ${path} ${options.lanes}`);
  }

  get nrPfns(): number {
    return this.header.nrPfns;
  }

  /** Runs `[first, count]` of pfns that need a frame: all but those of class noFrame and broken. Ascending. */
  frameRuns(): [first: number, count: number][] {
    throw new Error('being written');
  }

  /** Class, type and place of one page. */
  pageEntry(_pfn: number): PageEntry {
    throw new Error('being written');
  }

  /**
   * The contents of these pages one after the other, 4096 bytes each, page tables in canonical form; zeroes for a page
   * without a body. Uses the last lane. IMAGE_DAMAGED if a chunk is not what the index says.
   */
  readPages(_pfns: readonly number[]): Buffer {
    throw new Error('being written');
  }

  /** The chunk table's entry. */
  chunk(_index: number): ChunkEntry {
    throw new Error('being written');
  }

  /** Compares a chunk's stored bytes with its checksum; IMAGE_DAMAGED if they differ. One thread a lane. */
  checkChunk(_lane: number, _chunk: number): void {
    throw new Error('being written');
  }

  /** All page tables, by ascending pfn. */
  tables(): PageTableEntry[] {
    throw new Error('being written');
  }

  /** Releases the file and the lanes. Idempotent. No thread may be using the handle. */
  close(): void {
    throw new Error('being written');
  }
}

/** Opens an image: header, footer, manifest and index are checked here, chunks natively when they are asked for. */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { native } from '../addon.js';
import { DormouseError } from '../errors.js';
import { totalPages, type PageCounts } from '../pfn/counts.js';
import { isPinned, tableLevel } from '../pfn/page_type.js';
import {
  CHUNK_ENTRY,
  CHUNK_ENTRY_SIZE,
  CLASS_NAMES,
  FOOTER,
  LZ4_MAX_RATIO,
  MAP_RUN_SIZE,
  MAX_MANIFEST_BYTES,
  PAGE_SIZE,
  XL_MAGIC,
  isZero,
  wholePages,
  type PageClass,
} from './format.js';
import { openImageFile, readExactly } from './file.js';
import {
  damaged,
  decodeFooter,
  decodeHeader,
  namedCounts,
  sameCounts,
  storedHash,
  type ImageFooter,
  type ImageHeader,
  type SealedFooter,
} from './frame.js';
import { decodeManifest, type Manifest } from './manifest.js';
import { nativeImage } from './native.js';
import type { Signer } from './signature.js';
import type { ReaderHandle } from '../handle.js';

export type { ImageHeader } from './frame.js';

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

const classBit = (name: PageClass): number => 1 << CLASS_NAMES.indexOf(name);
const FRAME_CLASSES = (['data', 'zero', 'table', 'alloc', 'sameAsParent'] as const)
  .map(classBit)
  .reduce((mask, bit) => mask | bit);

/** The footer's sizes must tile the file, and what they claim must be possible, before anything is allocated. */
function checkLayout(header: ImageHeader, footer: ImageFooter, fileSize: number): void {
  const table = footer.manifestOffset + wholePages(footer.manifestSize);
  const map = table + wholePages(footer.chunkCount * CHUNK_ENTRY_SIZE);
  const tiles =
    footer.fileSize === fileSize &&
    footer.chunksEnd === footer.manifestOffset &&
    footer.chunksEnd % PAGE_SIZE === 0 &&
    footer.chunksEnd > PAGE_SIZE &&
    footer.chunkTableOffset === table &&
    footer.pageMapOffset === map &&
    map + wholePages(footer.pageMapSize) + PAGE_SIZE === fileSize;
  if (!tiles) throw damaged('footer: its regions do not make up the file', fileSize - PAGE_SIZE);
  if (footer.imageId !== header.imageId || footer.nrPfns !== header.nrPfns)
    throw damaged('header and footer are of different images', fileSize - PAGE_SIZE);
  const possible =
    footer.manifestSize <= MAX_MANIFEST_BYTES &&
    footer.chunkCount <= footer.chunksEnd / PAGE_SIZE &&
    footer.storedPages >= footer.nrPfns &&
    footer.pageMapRuns <= footer.nrPfns &&
    footer.pageMapRuns * MAP_RUN_SIZE <= footer.pageMapSize * LZ4_MAX_RATIO &&
    totalPages(footer.counts) === footer.nrPfns;
  if (!possible) throw damaged('footer: sizes that cannot be', fileSize - PAGE_SIZE);
}

interface Tail {
  readonly manifest: Buffer;
  readonly chunkTable: Buffer;
  readonly pageMap: Buffer;
}

/** Reads the regions between chunks and footer and checks each against its hash, and all against the root. */
async function readTail(
  file: FileHandle,
  headerPage: Buffer,
  footerPage: Buffer,
  footer: SealedFooter,
): Promise<Tail> {
  const root = createHash('sha256').update(headerPage);
  const region = async (what: string, offset: number, size: number, hash: string): Promise<Buffer> => {
    const span = await readExactly(file, offset, wholePages(size));
    if (storedHash(span) !== hash) throw damaged(`the ${what}'s checksum differs`, offset);
    if (!isZero(span, size)) throw damaged(`the ${what}'s padding is not zero`, offset);
    root.update(span);
    return span.subarray(0, size);
  };
  const tableSize = footer.chunkCount * CHUNK_ENTRY_SIZE;
  const tail = {
    manifest: await region('manifest', footer.manifestOffset, footer.manifestSize, footer.manifestHash),
    chunkTable: await region('chunk table', footer.chunkTableOffset, tableSize, footer.chunkTableHash),
    pageMap: await region('page map', footer.pageMapOffset, footer.pageMapSize, footer.pageMapHash),
  };
  if (root.update(footerPage.subarray(0, FOOTER.root[0])).digest('hex') !== footer.root)
    throw damaged('the root differs from what the image holds', footer.fileSize - PAGE_SIZE);
  return tail;
}

/** Header, footer, manifest and page map say some things twice; they must agree. */
function checkAgreement(header: ImageHeader, footer: ImageFooter, manifest: Manifest): void {
  const agree =
    manifest.geometry.nrPfns === header.nrPfns &&
    manifest.consistency === header.consistency &&
    sameCounts(manifest.pages, footer.counts);
  if (!agree) throw damaged('header, manifest and footer contradict each other', footer.manifestOffset);
}

/** The footer's totals must be the chunk table's. */
function checkTableSums(table: Buffer, footer: ImageFooter): void {
  let pages = 0;
  let bodies = 0;
  for (let at = 0; at < table.length; at += CHUNK_ENTRY_SIZE) {
    pages += table.readUInt16LE(at + CHUNK_ENTRY.pages[0]);
    bodies += table.readUInt16LE(at + CHUNK_ENTRY.bodies[0]);
  }
  if (pages !== footer.storedPages || bodies !== footer.storedBodies)
    throw damaged("the chunk table's totals are not the footer's", footer.chunkTableOffset);
}

export class ImageReader {
  private isOpen = true;

  private constructor(
    /** Registry<image::Reader>: valid in every thread of the process until close(). */
    readonly handle: ReaderHandle,
    readonly path: string,
    readonly header: ImageHeader,
    readonly manifest: Manifest,
    readonly counts: PageCounts,
    /** SHA-256 over header, manifest, index and footer: 64 hex digits. */
    readonly root: string,
    /** Whose signature over the root it bears; checked. */
    readonly signer: Signer | null,
    readonly nrChunks: number,
    /** Size of the file in bytes. */
    readonly storedBytes: number,
    private readonly lanes: number,
  ) {}

  /**
   * Reads and checks everything but the chunks' bytes. `lanes`: how many threads may read chunks at once (about 2.1 MiB
   * of memory each). Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE, NO_MEMORY.
   */
  static async open(path: string, options: { readonly lanes: number }): Promise<ImageReader> {
    if (!Number.isInteger(options.lanes) || options.lanes < 1 || options.lanes > 64)
      throw new DormouseError('INTERNAL', `${options.lanes} lanes; 1 to 64 are possible`);
    const { file, size } = await openImageFile(path);
    try {
      return await ImageReader.load(path, file, size, options.lanes);
    } finally {
      await file.close();
    }
  }

  private static async load(
    path: string,
    file: FileHandle,
    size: number,
    lanes: number,
  ): Promise<ImageReader> {
    const headerPage = await readExactly(file, 0, Math.min(size, PAGE_SIZE));
    if (headerPage.subarray(0, XL_MAGIC.length).equals(XL_MAGIC))
      throw new DormouseError(
        'IMAGE_INCOMPATIBLE',
        `${path} is an xl save file: convert it first (dormouse image convert)`,
        { place: { path } },
      );
    const header = decodeHeader(headerPage);
    if (size < 2 * PAGE_SIZE) throw damaged('the file ends early', size);
    const footerPage = await readExactly(file, size - PAGE_SIZE, PAGE_SIZE);
    const footer = decodeFooter(footerPage);
    checkLayout(header, footer, size);
    const tail = await readTail(file, headerPage, footerPage, footer);
    const manifest = decodeManifest(tail.manifest);
    checkAgreement(header, footer, manifest);
    checkTableSums(tail.chunkTable, footer);
    const handle = native(() =>
      nativeImage().openReader(
        {
          fd: file.fd,
          imageId: Buffer.from(header.imageId, 'hex'),
          nrPfns: header.nrPfns,
          lanes,
          hasParent: header.parent !== null,
          chunksEnd: footer.chunksEnd,
          pageMapRuns: footer.pageMapRuns,
        },
        tail.chunkTable,
        tail.pageMap,
      ),
    );
    const { counts, root, signer, chunkCount } = footer;
    const reader = new ImageReader(
      handle,
      path,
      header,
      manifest,
      counts,
      root,
      signer,
      chunkCount,
      size,
      lanes,
    );
    if (sameCounts(namedCounts(nativeImage().readerCounts(handle)), counts)) return reader;
    reader.close();
    throw damaged('the page map holds other counts than the footer', footer.pageMapOffset);
  }

  get nrPfns(): number {
    return this.header.nrPfns;
  }

  get imageId(): string {
    return this.header.imageId;
  }

  private native() {
    if (!this.isOpen) throw new DormouseError('INTERNAL', 'the image was closed');
    return nativeImage();
  }

  private checkIndex(what: string, value: number, below: number): void {
    if (!Number.isInteger(value) || value < 0 || value >= below)
      throw new DormouseError('INTERNAL', `${what} ${value} of ${below}`);
  }

  /** Runs `[first, count]` of pfns that need a frame: all but those of class noFrame and broken. Ascending. */
  frameRuns(): [first: number, count: number][] {
    const flat = this.native().classRuns(this.handle, FRAME_CLASSES, false);
    const runs: [number, number][] = [];
    for (let i = 0; i < flat.length; i += 3) runs.push([flat[i] ?? 0, flat[i + 1] ?? 0]);
    return runs;
  }

  /** Class, type and place of one page. */
  pageEntry(pfn: number): PageEntry {
    this.checkIndex('pfn', pfn, this.nrPfns);
    const [pageClass, type, chunk, slot] = this.native().pageEntry(this.handle, pfn);
    return { pfn, pageClass: CLASS_NAMES[pageClass] as PageClass, type, chunk, slot };
  }

  /**
   * The contents of these pages one after the other, 4096 bytes each, page tables in canonical form; zeroes for a page
   * without a body. Has a lane of its own; for one thread at a time. IMAGE_DAMAGED if a chunk is not what the index
   * says; IMAGE_NOT_RESTORABLE for a page that is in the parent.
   */
  readPages(pfns: readonly number[]): Buffer {
    for (const pfn of pfns) this.checkIndex('pfn', pfn, this.nrPfns);
    const pages = Buffer.allocUnsafe(pfns.length * PAGE_SIZE);
    native(() => this.native().readPages(this.handle, Float64Array.from(pfns), pages));
    return pages;
  }

  /** The chunk table's entry. */
  chunk(index: number): ChunkEntry {
    this.checkIndex('chunk', index, this.nrChunks);
    return this.native().chunkEntry(this.handle, index);
  }

  /**
   * Compares a chunk's stored bytes with its checksum, and its structure with the index; IMAGE_DAMAGED (naming chunk,
   * offset and pfns) if they differ. Decodes nothing. One thread a lane.
   */
  checkChunk(lane: number, chunk: number): void {
    this.checkIndex('lane', lane, this.lanes);
    this.checkIndex('chunk', chunk, this.nrChunks);
    native(() => this.native().checkChunk(this.handle, lane, chunk));
  }

  /** A chunk's page descriptors (page_desc() of native/image/chunk.h) and the bodies that go with them, copied. */
  readChunk(lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer } {
    this.checkIndex('lane', lane, this.lanes);
    this.checkIndex('chunk', chunk, this.nrChunks);
    return native(() => this.native().readChunk(this.handle, lane, chunk));
  }

  /** All page tables, by ascending pfn. */
  tables(): PageTableEntry[] {
    const flat = this.native().classRuns(this.handle, classBit('table'), true);
    const tables: PageTableEntry[] = [];
    for (let i = 0; i < flat.length; i += 3) {
      const [first = 0, count = 0, type = 0] = flat.subarray(i, i + 3);
      const level = tableLevel(type);
      if (level === 0) throw new DormouseError('INTERNAL', `page type ${type} of a page table`);
      for (let pfn = first; pfn < first + count; pfn++) tables.push({ pfn, level, pinned: isPinned(type) });
    }
    return tables;
  }

  /** Releases the file and the lanes. Idempotent. No thread may be using the handle. */
  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    nativeImage().closeReader(this.handle);
  }
}

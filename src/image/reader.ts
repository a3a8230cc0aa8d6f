/** Opens an image: header, footer, manifest and index are checked here, chunks natively when they are asked for. */
import { native } from '../addon.js';
import { dirname, join } from 'node:path';
import { asDormouseError, changed, DormouseError, inFile } from '../errors.js';
import { type PageClass, classNames, type PageCounts, classNumber } from '../pfn/counts.js';
import { isPinned, tableLevel } from '../pfn/page_type.js';
import { readChain, type Chain, type ChainFile } from './chain.js';
import { realPath } from './file.js';
import { CHUNK_ENTRY, CHUNK_ENTRY_SIZE } from './format.js';
import { damaged, namedCounts, sameCounts, type ImageHeader, type SealedFooter } from './frame.js';
import { ImageFile } from './image_file.js';
import { decodeManifest, type Manifest } from './manifest.js';
import { nativeImage } from './native.js';
import type { Signer } from './signature.js';
import type { ReaderHandle } from '../handle.js';
import { pageBytes } from '../pfn/page_words.js';

export type { ImageHeader } from './frame.js';

/** Where a page is and what it is. `type` is Xen's page type nibble; chunk -1: in none, its class says all. */
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

/** One chunk as the chunk table has it; `offset` and `span` in bytes of the file, `source` an index into `files`. */
export interface ChunkEntry {
  readonly source: number;
  readonly chunk: number;
  readonly offset: number;
  readonly span: number;
  readonly pages: number;
}

const classBit = (name: PageClass): number => 1 << classNumber(name);
const classBits = (names: readonly PageClass[]): number =>
  names.map(classBit).reduce((mask, bit) => mask | bit);
const CONTENT_CLASSES = classBits(['data', 'zero', 'table']);
const FRAME_CLASSES = CONTENT_CLASSES | classBit('alloc');

/** Header, footer and manifest say some things twice; they must agree. */
function checkAgreement({ header, footer }: ImageFile, manifest: Manifest): void {
  const agree =
    manifest.geometry.nrPfns === header.nrPfns &&
    manifest.consistency === header.consistency &&
    sameCounts(manifest.pages, footer.counts);
  if (!agree) throw damaged('header, manifest and footer contradict each other', footer.chunksEnd);
}

/** The footer's total must be the chunk table's. */
function checkTableSum(table: Buffer, footer: SealedFooter): void {
  let pages = 0;
  for (let at = 0; at < table.length; at += CHUNK_ENTRY_SIZE)
    pages += table.readUInt16LE(at + CHUNK_ENTRY.pages[0]);
  if (pages !== footer.storedPages)
    throw damaged("the chunk table's pages are not as many as the footer says", footer.chunksEnd);
}

export interface ReaderOptions {
  /** How many threads may read chunks at once: 1 to 64, about 2.1 MiB of memory each. */
  readonly lanes: number;
  /** Read the stored hashes of pages too. Default false. */
  readonly pageHashes?: boolean;
  /** Its map is what is wanted, or single pages: chunks of deltas are not gone through, and readChunk() fails. Default false. */
  readonly mapOnly?: boolean;
}

export class ImageReader {
  private isOpen = true;
  private extent = { chunks: 0, units: 0 };

  private constructor(
    /** Registry<image::Reader>: valid in every thread of the process until close(). */
    readonly handle: ReaderHandle,
    readonly path: string,
    readonly header: ImageHeader,
    readonly manifest: Manifest,
    /** As they are in the domain, whichever file holds them; the manifest's are of this file alone. */
    readonly counts: PageCounts,
    /** SHA-256 over header and footer, which hold the hash of all else: 64 hex digits. */
    readonly root: string,
    /** The same for equal memory, however it is stored: 64 hex digits; null where it was not computed. */
    readonly contentRoot: string | null,
    /** Whose signature over the root it bears; checked. */
    readonly signer: Signer | null,
    /** The files its pages are in: its own first, then those of ancestors that are needed. */
    readonly files: readonly ChainFile[],
    /** Size of the file in bytes. */
    readonly storedBytes: number,
    private readonly lanes: number,
  ) {}

  /**
   * Reads and checks everything but the chunks' bytes. Of an increment the ancestors that hold pages of it are opened too;
   * they are looked for in its folder. Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE (also:
   * an ancestor's name is another image's now), NO_MEMORY; the message names the file.
   */
  static async open(path: string, options: ReaderOptions): Promise<ImageReader> {
    if (!Number.isInteger(options.lanes) || options.lanes < 1 || options.lanes > 64)
      throw new DormouseError('INTERNAL', `${options.lanes} lanes; 1 to 64 are possible`);
    const file = await ImageFile.open(path);
    try {
      const chain = await readChain(file, options.pageHashes ?? false);
      try {
        return await ImageReader.load(file, chain, options);
      } finally {
        await chain.close();
      }
    } finally {
      await file.close();
    }
  }

  private static async load(file: ImageFile, chain: Chain, options: ReaderOptions): Promise<ImageReader> {
    const { lanes, mapOnly = false } = options;
    const { path, header, footer, size } = file;
    const manifest = decodeManifest(await file.region('manifest'));
    checkAgreement(file, manifest);
    checkTableSum(chain.sources[0]?.chunkTable ?? Buffer.alloc(0), footer);
    const { sources, layers } = chain;
    const handle = native(() => nativeImage().openReader({ lanes, sources, layers }));
    const { own, all } = nativeImage().readerCounts(handle);
    const { root, contentRoot, signer } = footer;
    const reader = new ImageReader(
      ...([handle, path, header, manifest, namedCounts(all), root, contentRoot, signer] as const),
      ...([chain.files, size, lanes] as const),
    );
    try {
      if (!sameCounts(namedCounts(own), footer.counts))
        throw damaged('the page map holds other counts than the footer', footer.regions.pageMap.offset);
      if (!mapOnly && sources.some(({ deltas }) => deltas)) await reader.followDeltas();
    } catch (thrown) {
      reader.close();
      throw thrown;
    }
    reader.extent = nativeImage().readerExtent(handle);
    return reader;
  }

  private async followDeltas(): Promise<void> {
    try {
      await nativeImage().followDeltas(this.handle);
    } catch (thrown) {
      throw this.named(asDormouseError(thrown));
    }
  }

  get nrChunks(): number {
    return this.extent.chunks;
  }

  /** Chunks, and after them pieces of pages that are in none: what a restore goes through. */
  get nrUnits(): number {
    return this.extent.units;
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

  /** An error of one of its files names that file. */
  private named(thrown: unknown): unknown {
    const error = asDormouseError(thrown);
    if (error.code !== 'IMAGE_DAMAGED' && error.code !== 'IMAGE_READ_FAILED') return thrown;
    const { message } = error;
    const other = this.files.slice(1).find(({ name }) => message.startsWith(`${name}: chunk `));
    if (!other) return inFile(error, this.path);
    const path = join(dirname(realPath(this.path)), other.name);
    const said = `${path}, which ${this.path} needs: ${message.slice(other.name.length + 2)}`;
    return inFile(changed(error, { message: said }), path);
  }

  /** Runs what reads its pages elsewhere, as in threads; an error of one of its files names that file. */
  async naming<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      throw this.named(thrown);
    }
  }

  /** The same for what is read here. */
  private readHere<T>(work: () => T): T {
    try {
      return native(work);
    } catch (thrown) {
      throw this.named(thrown);
    }
  }

  private checkIndex(what: string, value: number, below: number): void {
    if (!Number.isInteger(value) || value < 0 || value >= below)
      throw new DormouseError('INTERNAL', `${what} ${value} of ${below}`);
  }

  /** Runs `[first, count]` of pfns that need a frame: all but those of class noFrame and broken. Ascending. */
  frameRuns(): [first: number, count: number][] {
    return this.runsOf(FRAME_CLASSES);
  }

  /** The same of those that have content, be it zeroes. */
  contentRuns(): [first: number, count: number][] {
    return this.runsOf(CONTENT_CLASSES);
  }

  private runsOf(classes: number): [first: number, count: number][] {
    const flat = this.native().classRuns(this.handle, classes, false);
    const runs: [number, number][] = [];
    for (let i = 0; i < flat.length; i += 3) runs.push([flat[i] ?? 0, flat[i + 1] ?? 0]);
    return runs;
  }

  /** Class, type and place of one page. */
  pageEntry(pfn: number): PageEntry {
    this.checkIndex('pfn', pfn, this.nrPfns);
    const [pageClass, type, chunk, slot] = this.native().pageEntry(this.handle, pfn);
    return { pfn, pageClass: classNames[pageClass] as PageClass, type, chunk, slot };
  }

  /**
   * The contents of these pages one after the other, 4096 bytes each, page tables in canonical form; zeroes for a page
   * without a body. Has a lane of its own; for one thread at a time. IMAGE_DAMAGED if a chunk is not what the index
   * says.
   */
  readPages(pfns: readonly number[]): Buffer {
    for (const pfn of pfns) this.checkIndex('pfn', pfn, this.nrPfns);
    const pages = Buffer.allocUnsafe(pfns.length * pageBytes);
    this.readHere(() => this.native().readPages(this.handle, Float64Array.from(pfns), pages));
    return pages;
  }

  /**
   * Makes room for the hashes of pages whose file has none; the step `hash` then fills them in, chunk by chunk. To be opened
   * with `pageHashes`. NO_MEMORY.
   */
  prepareHashes(): void {
    native(() => this.native().prepareHashes(this.handle));
  }

  /** Which ancestors hold pages that count; the image's own file, the first, always counts as used. */
  usedFiles(): ChainFile[] {
    const { usedSources } = this.native().readerExtent(this.handle);
    return this.files.filter((_, i) => i === 0 || usedSources[i]);
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
    this.readHere(() => this.native().checkChunk(this.handle, lane, chunk));
  }

  /** A chunk's page descriptors (page_desc() of native/image/chunk.h) and the bodies that go with them, copied. */
  readChunk(lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer } {
    this.checkIndex('lane', lane, this.lanes);
    this.checkIndex('chunk', chunk, this.nrChunks);
    return this.readHere(() => this.native().readChunk(this.handle, lane, chunk));
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

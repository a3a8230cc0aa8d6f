/** Writes an image: pages go to native lanes, header, manifest, index and footer are laid down here on commit. */
import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { native } from '../addon.js';
import { type Compression, defaultCompression } from '../codec/compression.js';
import { asDormouseError, DormouseError } from '../errors.js';
import { memoryBytesOf, totalPages, type PageCounts } from '../pfn/counts.js';
import { encodeAncestors, type Ancestor } from './ancestors.js';
import type { DeltaBases, DeltaUse } from './delta_bases.js';
import {
  ANCESTOR,
  CHUNK_ENTRY_SIZE,
  FULL_MAP_EVERY,
  MAX_PFNS,
  wholePages,
  type Consistency,
  type Region,
} from './format.js';
import {
  encodeFooter,
  encodeHeader,
  namedCounts,
  rootOf,
  sameCounts,
  sealFooter,
  type ImageHeader,
  type RegionPlace,
} from './frame.js';
import { encodeManifest, type Manifest } from './manifest.js';
import { realPath } from './file.js';
import { requireImage } from './image_file.js';
import { nativeImage } from './native.js';
import type { ImageReader } from './reader.js';
import { sha256 } from './sha256.js';
import type { SignRoot } from './signature.js';
import type { WriterHandle } from '../handle.js';
import { pageBytes } from '../pfn/page_words.js';

export interface WriterOptions {
  /** Size of the pfn space: every pfn below it must be appended at least once, but for an increment's. */
  readonly nrPfns: number;
  /** How many threads may append at once, each in its own lane; at most 5. About 10.3 MiB of memory a lane. */
  readonly lanes: number;
  readonly consistency: Consistency;
  /** Makes an increment: what is not appended is, with type and all, as in that image. In the same folder. */
  readonly parent?: ParentImage;
  /** Close the parent's reader with the writer. */
  readonly closesParent?: boolean;
  /** Leave out what is appended and is in the parent the same; the parent's reader must have all page hashes. */
  readonly skipUnchanged?: boolean;
  /** With skipUnchanged: every pfn must be appended all the same, so that none is left out that was not looked at. */
  readonly complete?: boolean;
  /** Of an increment: a map of all pages, for which the parent's reader is needed. Default: every 32nd where it is given. */
  readonly fullMap?: boolean;
  /** Store a hash of each page, and the content root (of an increment: if its parent's hashes are at hand). */
  readonly pageHashes?: boolean;
  /** Store SHA-256 of each chunk, so that a signature vouches for the pages too. Default: where it is signed. */
  readonly chunkDigests?: boolean;
  /** Signs the image's root; called once, when all else is written. What it throws abandons the image. */
  readonly sign?: SignRoot;
  /** Pages may be stored as what changed since images that the same bases were used for; only with pageHashes. */
  readonly deltas?: DeltaBases;
  /** Default: lz4. */
  readonly compression?: Compression;
  /** Bypass the page cache where the file system can. Default true. */
  readonly directIo?: boolean;
  /** False: write into a hidden ".partial" file, as where the file system has no unnamed files. Default true. */
  readonly unnamedFile?: boolean;
  /** The image never has a name: of its path only the folder counts. Default false. */
  readonly nameless?: boolean;
}

/** What an increment must know of the image it is taken on. A CommittedImage is one. */
export interface ParentImage {
  readonly path: string;
  /** 32 hex digits. */
  readonly imageId: string;
  /** 64 hex digits. */
  readonly root: string;
  readonly chainId: string;
  readonly sequence: number;
  readonly nrPfns: number;
  readonly contentRoot: string | null;
  readonly hasChunkDigests: boolean;
  /** Open until the increment is committed or abandoned. */
  readonly reader?: ImageReader;
}

/** Parent of an increment that may have a full map, and may leave out what did not change. */
export function parentOf(reader: ImageReader): ParentImage {
  const { root, contentRoot, header } = reader;
  // A symbolic link may lead to another image tomorrow.
  const path = realPath(reader.path);
  const { imageId, chainId, sequence, nrPfns, hasChunkDigests } = header;
  return { path, imageId, root, chainId, sequence, nrPfns, contentRoot, hasChunkDigests, reader };
}

export interface CommittedImage extends ParentImage {
  /** Size of the file. */
  readonly storedBytes: number;
  /** Of a nameless one, to be closed by the caller: until then `path` leads there, for other processes of this user too. */
  readonly descriptor: number | null;
}

const MAX_LANES = 5;
const nothing = Buffer.alloc(0);
const noDeltas = { pages: 0, image: 0, images: [] } as const;

function checkParent(path: string, parent: ParentImage, options: WriterOptions): void {
  const real = realPath(parent.path);
  if (dirname(realPath(path)) !== dirname(real))
    throw new DormouseError('OUTPUT_INVALID', `${path} is not in the folder of ${parent.path}, its parent`);
  if (Buffer.byteLength(basename(real)) > ANCESTOR.name[1])
    throw new DormouseError('OUTPUT_INVALID', `the name of ${parent.path} is too long for a parent`);
  if ((options.skipUnchanged || options.fullMap) && !parent.reader)
    throw new DormouseError('INTERNAL', 'the parent is not open');
  if (options.sign && !parent.hasChunkDigests)
    throw new DormouseError(
      'IMAGE_INCOMPATIBLE',
      `${parent.path} has no digests that a signature of its increment could vouch for`,
    );
}

/** A region of the tail as it is laid down: pieces, then zeroes up to a whole page. */
class TailRegion {
  size = 0;
  private readonly pieces: Buffer[] = [];

  static of(bytes: Buffer): TailRegion {
    const region = new TailRegion();
    region.add(bytes);
    return region;
  }

  add(bytes: Buffer): void {
    this.pieces.push(bytes);
    this.size += bytes.length;
  }

  /** The region with its padding. */
  span(): Buffer {
    return Buffer.concat(this.pieces, wholePages(this.size));
  }
}

export class ImageWriter {
  private open = true;
  private lastCounts: ReturnType<ReturnType<typeof nativeImage>['writerCounts']> | undefined;

  private constructor(
    /** Registry<image::Writer>: valid in every thread of the process until commit or abandon. */
    readonly handle: WriterHandle,
    /** 32 hex digits. */
    readonly imageId: string,
    readonly path: string,
    private readonly options: WriterOptions,
    private readonly header: Omit<ImageHeader, 'major' | 'minor'>,
    private readonly headerPage: Buffer,
    private readonly fullMap: boolean,
    private readonly deltas: DeltaUse | undefined,
  ) {}

  /**
   * Opens an unnamed file in the folder of `path`; nothing appears under `path` before commit.
   * Errors: OUTPUT_EXISTS (a file is there), OUTPUT_INVALID (a folder, a symbolic link, no such parent, not
   * writable, not in the folder of the parent image), NO_SPACE, IMAGE_WRITE_FAILED, NO_MEMORY.
   */
  static async create(path: string, options: WriterOptions): Promise<ImageWriter> {
    const { nrPfns, lanes, consistency, parent } = options;
    if (!Number.isSafeInteger(nrPfns) || nrPfns < 1 || nrPfns > MAX_PFNS)
      throw new DormouseError('INTERNAL', `an image of ${nrPfns} pfns`);
    if (!Number.isInteger(lanes) || lanes < 1 || lanes > MAX_LANES)
      throw new DormouseError('INTERNAL', `${lanes} lanes; 1 to ${MAX_LANES} are possible`);
    if (path.includes('\0')) throw new DormouseError('OUTPUT_INVALID', 'the path holds a NUL');
    const chunkDigests = options.chunkDigests ?? options.sign !== undefined;
    if (parent) checkParent(path, parent, options);
    const imageId = randomBytes(16).toString('hex');
    const deltas = options.deltas?.begin(parent ?? null);
    const header: Omit<ImageHeader, 'major' | 'minor'> = {
      ...{ imageId, parent: parent ?? null, nrPfns, consistency },
      chainId: parent?.chainId ?? imageId,
      sequence: parent ? parent.sequence + 1 : 0,
      hasPageHashes: options.pageHashes ?? false,
      hasDeltas: (deltas?.setup.images.length ?? 0) > 0,
      hasChunkDigests: chunkDigests,
    };
    const fullMap =
      parent?.reader !== undefined && (options.fullMap ?? header.sequence % FULL_MAP_EVERY === 0);
    const headerPage = encodeHeader(header);
    await Promise.resolve();
    const handle = native(() =>
      nativeImage().createWriter({
        ...{ path, header: headerPage, nrPfns, lanes, fullMap },
        direct: options.directIo ?? true,
        unnamed: options.unnamedFile ?? true,
        nameless: options.nameless ?? false,
        pageHashes: header.hasPageHashes,
        digests: chunkDigests,
        parentPfns: parent?.nrPfns ?? 0,
        parent: parent?.reader?.handle ?? 0,
        skipUnchanged: options.skipUnchanged ?? false,
        complete: options.complete ?? false,
        compression: options.compression ?? defaultCompression,
        deltas: deltas?.setup ?? noDeltas,
      }),
    );
    return new ImageWriter(handle, imageId, path, options, header, headerPage, fullMap, deltas);
  }

  /**
   * Appends pages from this thread: `descs` as page_desc() of native/image/chunk.h, `bodies` the 4096-byte contents
   * of those whose class has one, in order. A pfn appended again replaces what was there (the last append wins).
   * Errors: NO_SPACE, IMAGE_WRITE_FAILED, ACCOUNTING_MISMATCH (a pfn beyond nrPfns, a class that does not fit the type).
   */
  append(lane: number, descs: BigUint64Array, bodies: Buffer): void {
    if (!this.open) throw new DormouseError('INTERNAL', 'the image is complete');
    if (bodies.length % pageBytes !== 0) throw new DormouseError('INTERNAL', 'bodies are not whole pages');
    native(() => nativeImage().append(this.handle, lane, descs, bodies));
  }

  get compression(): Compression {
    return this.options.compression ?? defaultCompression;
  }

  /** Of an increment. */
  get parent(): ParentImage | null {
    return this.options.parent ?? null;
  }

  private nativeCounts() {
    if (this.open) this.lastCounts = nativeImage().writerCounts(this.handle);
    if (!this.lastCounts) throw new DormouseError('INTERNAL', 'the image was dropped');
    return this.lastCounts;
  }

  /**
   * Pages by class as of now; pages that were replaced count once. Of an increment those that were not appended or were left
   * out count as sameAsParent. Cheap. After commit: the final ones.
   */
  counts(): PageCounts {
    const counts = namedCounts(this.nativeCounts().byClass);
    if (this.options.parent) counts.sameAsParent = this.options.nrPfns - totalPages(counts);
    return counts;
  }

  /** Bytes of the domain's pages that have a frame; those left out count as what they are. */
  memoryBytes(): number {
    const { byClass } = this.nativeCounts();
    const { noFrame, broken } = namedCounts(byClass.slice(8));
    return memoryBytesOf(this.counts()) - (noFrame + broken) * pageBytes;
  }

  /** Bytes of chunks written or waiting in lanes so far. */
  storedBytes(): number {
    return this.nativeCounts().storedBytes;
  }

  /** Of those, bytes of chunks of other images that take no room of their own. */
  sharedBytes(): number {
    return this.nativeCounts().sharedBytes;
  }

  /**
   * Completes the file, syncs it, and gives it its name, never replacing another. All appends must have returned.
   * Errors: ACCOUNTING_MISMATCH (a pfn never appended, or the manifest's pages differ), OUTPUT_EXISTS (appeared
   * meanwhile), NO_SPACE, IMAGE_WRITE_FAILED. After any of them the image is abandoned.
   */
  async commit(manifest: Manifest): Promise<CommittedImage> {
    if (!this.open) throw new DormouseError('INTERNAL', 'the image is complete');
    try {
      await nativeImage().finish(this.handle);
      this.checkManifest(manifest);
      const laid = this.layTail(encodeManifest(manifest));
      await this.requireAncestors();
      await nativeImage().publish(this.handle);
      const descriptor = this.options.nameless ? native(() => nativeImage().descriptor(this.handle)) : null;
      const path = descriptor === null ? this.path : `/proc/${process.pid}/fd/${descriptor}`;
      const { imageId, chainId, sequence, nrPfns, hasChunkDigests } = this.header;
      if (descriptor === null)
        this.deltas?.committed({ imageId, sequence, path, root: laid.root }, this.isFull);
      return { path, descriptor, imageId, chainId, sequence, nrPfns, hasChunkDigests, ...laid };
    } catch (thrown) {
      throw asDormouseError(thrown);
    } finally {
      this.release();
    }
  }

  /** Whoever is told that the image is there may end the guest: without these files it is none. */
  private async requireAncestors(): Promise<void> {
    const files = this.options.parent?.reader?.files ?? [];
    const folder = dirname(realPath(this.path));
    for (const { name, imageId, root } of files) await requireImage(join(folder, name), { imageId, root });
  }

  private checkManifest(manifest: Manifest): void {
    const counts = this.counts();
    if (!sameCounts(counts, manifest.pages) || manifest.geometry.nrPfns !== this.options.nrPfns)
      throw new DormouseError(
        'ACCOUNTING_MISMATCH',
        `the manifest counts ${JSON.stringify(manifest.pages)}, the image holds ${JSON.stringify(counts)}`,
      );
    if (manifest.consistency !== this.options.consistency)
      throw new DormouseError('INTERNAL', 'manifest and header differ in consistency');
  }

  /** All regions and the footer, each in whole pages. */
  private layTail(manifest: Buffer): Pick<CommittedImage, 'root' | 'storedBytes' | 'contentRoot'> {
    const { storedBytes: chunksEnd, storedPages } = this.nativeCounts();
    const regions = {} as Record<Region, RegionPlace>;
    let offset = chunksEnd;
    const lay = (name: Region, region: TailRegion): void => {
      const span = region.span();
      native(() => nativeImage().writeTail(this.handle, span));
      regions[name] = { offset, size: region.size, hash: sha256(span) };
      offset += span.length;
    };
    const { handle, header } = this;
    lay('manifest', TailRegion.of(manifest));
    lay('ancestors', TailRegion.of(encodeAncestors(this.ancestors())));
    const table = TailRegion.of(nativeImage().writerChunkTable(handle));
    lay('chunkTable', table);
    const map = new TailRegion();
    const pageMapRuns = this.codePageMap(map);
    lay('pageMap', map);
    lay('pageHashes', TailRegion.of(header.hasPageHashes ? nativeImage().writerPageHashes(handle) : nothing));
    lay(
      'chunkDigests',
      TailRegion.of(header.hasChunkDigests ? nativeImage().writerDigests(handle) : nothing),
    );
    const contentRoot = this.contentRoot();
    const footer = encodeFooter({
      ...{ imageId: this.imageId, nrPfns: header.nrPfns, chunksEnd, storedPages, pageMapRuns },
      fileSize: offset + pageBytes,
      chunkCount: table.size / CHUNK_ENTRY_SIZE,
      mapKind: this.isFull ? 'full' : 'changes',
      counts: this.counts(),
      ...{ contentRoot, regions },
    });
    const root = rootOf(this.headerPage, footer);
    const signer = this.options.sign?.(Buffer.from(root, 'hex')) ?? null;
    native(() => nativeImage().writeTail(handle, sealFooter(footer, root, signer)));
    return { root, storedBytes: offset + pageBytes, contentRoot };
  }

  /** The parent, behind a full map all that its runs may lead to, and what deltas rest on. */
  private ancestors(): Ancestor[] {
    const { parent } = this.options;
    if (!parent) return [];
    const { imageId, root, sequence, path } = parent;
    const own = { imageId, root, sequence, name: basename(realPath(path)) };
    const listed = this.fullMap && parent.reader ? [own, ...parent.reader.usedFiles().slice(1)] : [own];
    const known = new Set(listed.map((file) => file.imageId));
    return [...listed, ...this.basesOfDeltas().filter((file) => !known.has(file.imageId))];
  }

  private basesOfDeltas(): Ancestor[] {
    return this.deltas?.files(nativeImage().writerDeltaAges(this.handle)) ?? [];
  }

  private get isFull(): boolean {
    return this.header.parent === null || this.fullMap;
  }

  /** Null where it cannot be told without reading the parent's pages. */
  private contentRoot(): string | null {
    const { parent, pageHashes, skipUnchanged } = this.options;
    if (pageHashes !== true) return null;
    if (parent && (skipUnchanged !== true || parent.contentRoot === null)) return null;
    const before = parent?.contentRoot ? Buffer.from(parent.contentRoot, 'hex') : Buffer.alloc(32);
    return nativeImage().writerContentRoot(this.handle, before).toString('hex');
  }

  private codePageMap(region: TailRegion): number {
    let runs = 0;
    for (let more = true; more;) {
      const piece = nativeImage().encodeMap(this.handle);
      region.add(piece.bytes);
      runs += piece.runs;
      more = piece.more;
    }
    return runs;
  }

  private release(): void {
    if (!this.open) return;
    this.nativeCounts();
    this.open = false;
    nativeImage().releaseWriter(this.handle);
    if (this.options.closesParent) this.options.parent?.reader?.close();
  }

  /** Drops everything written; nothing is left of it. Idempotent, and nothing after a commit. */
  async abandon(): Promise<void> {
    this.release();
    await Promise.resolve();
  }
}

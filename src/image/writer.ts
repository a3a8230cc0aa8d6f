/** Writes an image: pages go to native lanes, header, manifest, index and footer are laid down here on commit. */
import { createHash, randomBytes } from 'node:crypto';
import { native } from '../addon.js';
import { asDormouseError, DormouseError } from '../errors.js';
import type { PageCounts } from '../pfn/counts.js';
import { CHUNK_ENTRY_SIZE, FOOTER, MAX_PFNS, PAGE_SIZE, wholePages, type Consistency } from './format.js';
import { encodeFooter, encodeHeader, namedCounts, sameCounts, sealFooter, storedHash } from './frame.js';
import { encodeManifest, type Manifest } from './manifest.js';
import { nativeImage } from './native.js';
import type { SignRoot } from './signature.js';
import type { WriterHandle } from '../handle.js';

export interface WriterOptions {
  /** Size of the pfn space: every pfn below it must be appended at least once. */
  readonly nrPfns: number;
  /** How many threads may append at once, each in its own lane; at most 5. About 10.3 MiB of memory a lane. */
  readonly lanes: number;
  readonly consistency: Consistency;
  /** The image that pages of class sameAsParent are found in: ids and roots in hex. */
  readonly parent?: { readonly imageId: string; readonly root: string };
  /** Signs the image's root; called once, when all else is written. What it throws abandons the image. */
  readonly sign?: SignRoot;
  /** Bypass the page cache where the file system can. Default true. */
  readonly directIo?: boolean;
  /** False: write into a hidden ".partial" file, as where the file system has no unnamed files. Default true. */
  readonly unnamedFile?: boolean;
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

const MAX_LANES = 5;

/** A region of the tail as it is laid down: pieces, then zeroes up to a whole page. */
class TailRegion {
  size = 0;
  private readonly pieces: Buffer[] = [];

  constructor(readonly offset: number) {}

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
    private readonly header: Buffer,
  ) {}

  /**
   * Opens an unnamed file in the folder of `path`; nothing appears under `path` before commit.
   * Errors: OUTPUT_EXISTS (a file is there), OUTPUT_INVALID (a folder, a symbolic link, no such parent, not
   * writable), NO_SPACE, IMAGE_WRITE_FAILED, NO_MEMORY.
   */
  static async create(path: string, options: WriterOptions): Promise<ImageWriter> {
    const { nrPfns, lanes, consistency, parent } = options;
    if (!Number.isSafeInteger(nrPfns) || nrPfns < 1 || nrPfns > MAX_PFNS)
      throw new DormouseError('INTERNAL', `an image of ${nrPfns} pfns`);
    if (!Number.isInteger(lanes) || lanes < 1 || lanes > MAX_LANES)
      throw new DormouseError('INTERNAL', `${lanes} lanes; 1 to ${MAX_LANES} are possible`);
    if (path.includes('\0')) throw new DormouseError('OUTPUT_INVALID', 'the path holds a NUL');
    const imageId = randomBytes(16).toString('hex');
    const header = encodeHeader({ imageId, parent: parent ?? null, nrPfns, consistency });
    await Promise.resolve();
    const handle = native(() =>
      nativeImage().createWriter(
        path,
        header,
        nrPfns,
        lanes,
        parent !== undefined,
        options.directIo ?? true,
        options.unnamedFile ?? true,
      ),
    );
    return new ImageWriter(handle, imageId, path, options, header);
  }

  /**
   * Appends pages from this thread: `descs` as page_desc() of native/image/chunk.h, `bodies` the 4096-byte contents
   * of those whose class has one, in order. A pfn appended again replaces what was there (the last append wins).
   * Errors: NO_SPACE, IMAGE_WRITE_FAILED, ACCOUNTING_MISMATCH (a pfn beyond nrPfns, a class that does not fit the type).
   */
  append(lane: number, descs: BigUint64Array, bodies: Buffer): void {
    if (!this.open) throw new DormouseError('INTERNAL', 'the image is complete');
    if (bodies.length % PAGE_SIZE !== 0) throw new DormouseError('INTERNAL', 'bodies are not whole pages');
    native(() => nativeImage().append(this.handle, lane, descs, bodies));
  }

  private nativeCounts() {
    if (this.open) this.lastCounts = nativeImage().writerCounts(this.handle);
    if (!this.lastCounts) throw new DormouseError('INTERNAL', 'the image was dropped');
    return this.lastCounts;
  }

  /** Pages by class as of now; pages that were replaced count once. Cheap. After commit: the final ones. */
  counts(): PageCounts {
    return namedCounts(this.nativeCounts().byClass);
  }

  /** Bytes of chunks written or waiting in lanes so far. */
  storedBytes(): number {
    return this.nativeCounts().storedBytes;
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
      const { root, fileSize } = this.layTail(encodeManifest(manifest));
      await nativeImage().publish(this.handle);
      return { path: this.path, storedBytes: fileSize, imageId: this.imageId, root };
    } catch (thrown) {
      throw asDormouseError(thrown);
    } finally {
      this.release();
    }
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

  /** Manifest, chunk table, page map and footer, each in whole pages; the root covers them all and the header. */
  private layTail(manifestBytes: Buffer): { root: string; fileSize: number } {
    const root = createHash('sha256').update(this.header);
    const lay = (region: TailRegion): string => {
      const span = region.span();
      root.update(span);
      native(() => nativeImage().writeTail(this.handle, span));
      return storedHash(span);
    };
    const chunksEnd = this.nativeCounts().storedBytes;
    const manifest = new TailRegion(chunksEnd);
    manifest.add(manifestBytes);
    const table = new TailRegion(manifest.offset + wholePages(manifest.size));
    table.add(nativeImage().writerChunkTable(this.handle));
    const map = new TailRegion(table.offset + wholePages(table.size));
    const pageMapRuns = this.codePageMap(map);
    const fileSize = map.offset + wholePages(map.size) + PAGE_SIZE;
    const { storedPages, storedBodies } = this.nativeCounts();
    const footer = encodeFooter({
      imageId: this.imageId,
      fileSize,
      chunksEnd,
      manifestOffset: manifest.offset,
      manifestSize: manifest.size,
      chunkTableOffset: table.offset,
      chunkCount: table.size / CHUNK_ENTRY_SIZE,
      pageMapOffset: map.offset,
      pageMapSize: map.size,
      pageMapRuns,
      nrPfns: this.options.nrPfns,
      storedPages,
      storedBodies,
      counts: this.counts(),
      manifestHash: lay(manifest),
      chunkTableHash: lay(table),
      pageMapHash: lay(map),
    });
    const digest = root.update(footer.subarray(0, FOOTER.root[0])).digest('hex');
    const signer = this.options.sign?.(Buffer.from(digest, 'hex')) ?? null;
    native(() => nativeImage().writeTail(this.handle, sealFooter(footer, digest, signer)));
    return { root: digest, fileSize };
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
  }

  /** Drops everything written; nothing is left of it. Idempotent, and nothing after a commit. */
  async abandon(): Promise<void> {
    this.release();
    await Promise.resolve();
  }
}

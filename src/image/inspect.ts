/** Says what is inside an image, and goes on as far as it can through damage. Read-only. */
import type { FileHandle } from 'node:fs/promises';
import { asDormouseError, DormouseError } from '../errors.js';
import { memoryBytesOf, type PageCounts } from '../pfn/counts.js';
import { type Ancestor, decodeAncestors } from './ancestors.js';
import { bytesBehindFooter, longerBy } from './behind_footer.js';
import { openImageFile, readExactly } from './file.js';
import {
  ANCESTOR_SIZE,
  CHUNK_ENTRY_SIZE,
  CLASS_SLOTS,
  FORMAT_MINOR,
  MAX_ANCESTORS,
  MAX_CHUNK_SPAN,
  MAX_MANIFEST_BYTES,
  wholePages,
  type MapKind,
  type Region,
} from './format.js';
import {
  decodeFooter,
  decodeHeader,
  namedCounts,
  rootOf,
  type ImageFooter,
  type ImageHeader,
  type SealedFooter,
} from './frame.js';
import { decodeManifest, type Manifest } from './manifest.js';
import { parseChunk, parseChunkHead, parseChunkTable, type ChunkEntry, type ChunkHead } from './parse.js';
import { sha256 } from './sha256.js';
import { pageBytes } from '../pfn/page_words.js';

export interface ChunkSummary {
  readonly count: number;
  /** Chunks by codec: none, lz4; `damaged` where the header could not be read. */
  readonly byCodec: Readonly<Record<string, number>>;
  /** Of them those that hold deltas. */
  readonly ofDeltas: number;
}

export interface Inspection {
  readonly path: string;
  readonly fileBytes: number;
  /** Null where the first page is damaged. */
  readonly header: ImageHeader | null;
  /** Null where the manifest is damaged or missing. Blobs inside are the state's bytes. */
  readonly manifest: Manifest | null;
  /** Hex; null where the footer is damaged. */
  readonly root: string | null;
  /** The files it needs beside itself, its parent first; null where that cannot be told. */
  readonly ancestors: readonly Ancestor[] | null;
  /** Whether the page map holds every page or what is not as in the parent; null where the footer is damaged. */
  readonly mapKind: MapKind | null;
  readonly contentRoot: string | null;
  /** Whether header and footer are those that the root is of: a signature is one over that. */
  readonly rootHolds: boolean;
  /** The Ed25519 key that signed the root, 32 bytes; null where nobody did or the root does not hold. */
  readonly signerKey: Buffer | null;
  /** True if the footer is whole: the image was committed. */
  readonly committed: boolean;
  /** By class: the footer's, or what the chunks that could be read say (replaced pages count more than once then). */
  readonly counts: PageCounts;
  readonly chunks: ChunkSummary;
  /** Pages in all chunks, also those replaced by a later copy. */
  readonly storedPages: number;
  /** Of the pages that have a frame; null where the footer is damaged, and for an increment, whose ancestors would have to be asked. */
  readonly memoryBytes: number | null;
  /** Bytes of memory the pages stand for, divided by the size of the file. */
  readonly ratio: number;
  /** Sentences about what could not be read, at most 1000. Empty for an image whose structures are whole. */
  readonly damage: readonly string[];
}

const MOST_DAMAGE = 1000;
/** Pages that a scan takes for none of a chunk's before it ends: a file with holes may be of any length. */
const MOST_SKIPPED = 1 << 16;

class Inspector {
  readonly damage: string[] = [];
  readonly byCodec: Record<string, number> = {};
  deltaChunks = 0;
  readonly scanned = { pages: 0, byClass: new Array<number>(CLASS_SLOTS).fill(0) };
  header: ImageHeader | null = null;
  footer: SealedFooter | null = null;
  manifest: Manifest | null = null;
  ancestors: readonly Ancestor[] | null = null;
  rootHolds = false;
  private headerPage: Buffer | null = null;

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
  ) {}

  async run(): Promise<void> {
    this.header = await this.attempt(() => this.readHeader());
    this.footer = await this.attempt(() => this.readFooter());
    const { footer } = this;
    if (footer) this.manifest = await this.attempt(() => this.readManifest(footer));
    if (footer) this.ancestors = await this.attempt(() => this.readAncestors(footer));
    const entries = footer && (await this.attempt(() => this.readTable(footer)));
    if (entries) await this.readHeads(entries);
    else await this.scan();
  }

  /** The result, or null and a line in the list of damage. Another format or an unreadable disk is thrown. */
  private async attempt<T>(get: () => Promise<T>): Promise<T | null> {
    try {
      return await get();
    } catch (thrown) {
      const error = asDormouseError(thrown);
      if (error.code !== 'IMAGE_DAMAGED') throw error;
      this.note(error.message);
      return null;
    }
  }

  private note(what: string): void {
    if (this.damage.length < MOST_DAMAGE) this.damage.push(what);
  }

  private async readFooter(): Promise<SealedFooter> {
    if (this.size < 2 * pageBytes) throw new DormouseError('IMAGE_DAMAGED', 'the file ends before a footer');
    const page = await readExactly(this.file, this.size - pageBytes, pageBytes);
    const more = await bytesBehindFooter(this.file, this.size);
    if (more !== null) throw new DormouseError('IMAGE_DAMAGED', longerBy(more));
    const footer = decodeFooter(page);
    if (footer.fileSize !== this.size)
      throw new DormouseError('IMAGE_DAMAGED', 'the footer is of a file of another size');
    this.rootHolds = this.headerPage !== null && rootOf(this.headerPage, page) === footer.root;
    if (this.headerPage && !this.rootHolds) this.note('the root differs from what the image holds');
    return footer;
  }

  private async readHeader(): Promise<ImageHeader> {
    const page = await readExactly(this.file, 0, pageBytes);
    const header = decodeHeader(page);
    this.headerPage = page;
    return header;
  }

  private async readManifest(footer: ImageFooter): Promise<Manifest> {
    if (footer.regions.manifest.size > MAX_MANIFEST_BYTES)
      throw new DormouseError('IMAGE_DAMAGED', 'the manifest is too large');
    return decodeManifest(await this.region(footer, 'manifest'));
  }

  private async readTable(footer: ImageFooter): Promise<ChunkEntry[]> {
    if (footer.regions.chunkTable.size !== footer.chunkCount * CHUNK_ENTRY_SIZE)
      throw new DormouseError('IMAGE_DAMAGED', 'a chunk table of another size than its chunks take');
    return parseChunkTable(await this.region(footer, 'chunkTable'));
  }

  private async readAncestors(footer: ImageFooter): Promise<Ancestor[]> {
    if (footer.regions.ancestors.size > MAX_ANCESTORS * ANCESTOR_SIZE)
      throw new DormouseError('IMAGE_DAMAGED', 'more ancestors than there can be');
    return decodeAncestors(await this.region(footer, 'ancestors'), footer.minor > FORMAT_MINOR);
  }

  private async region(footer: ImageFooter, name: Region): Promise<Buffer> {
    const { offset, size, hash } = footer.regions[name];
    if (offset + wholePages(size) > this.size)
      throw new DormouseError('IMAGE_DAMAGED', 'a region lies beyond the file');
    const span = await readExactly(this.file, offset, wholePages(size));
    if (sha256(span) !== hash) throw new DormouseError('IMAGE_DAMAGED', `the hash of the ${name} differs`);
    return span.subarray(0, size);
  }

  private count(codec: string, isDeltas = false): void {
    this.byCodec[codec] = (this.byCodec[codec] ?? 0) + 1;
    if (isDeltas) this.deltaChunks++;
  }

  private async readHeads(entries: readonly ChunkEntry[]): Promise<void> {
    for (const [i, entry] of entries.entries()) {
      const head = entry.offset + pageBytes <= this.size ? await this.headAt(entry.offset) : null;
      if (head?.span === entry.span) this.count(head.codec, head.isDeltas);
      else {
        this.count('damaged');
        this.note(`chunk ${i} at offset ${entry.offset}: its header is damaged`);
      }
    }
  }

  private async headAt(offset: number): Promise<ChunkHead | null> {
    return parseChunkHead(await readExactly(this.file, offset, pageBytes));
  }

  /** Without a chunk table: from chunk to chunk by their headers, skipping what is none. */
  private async scan(): Promise<void> {
    let skipped = 0;
    for (let at = pageBytes; at + pageBytes <= this.size;) {
      if (skipped > MOST_SKIPPED) {
        this.note(`from offset ${at} on it was not looked for chunks: ${skipped} pages before are none`);
        return;
      }
      const head = await this.headAt(at);
      const span = head?.span ?? 0;
      if (!head || span % pageBytes !== 0 || span > MAX_CHUNK_SPAN || at + span > this.size) {
        at += pageBytes;
        skipped++;
        continue;
      }
      const chunk = parseChunk(await readExactly(this.file, at, span), true);
      if (typeof chunk === 'string') {
        this.count('damaged');
        this.note(`a chunk at offset ${at}: ${chunk}`);
      } else {
        this.count(head.codec, head.isDeltas);
        this.scanned.pages += head.pages;
        for (const { pageClass, count } of chunk.runs)
          this.scanned.byClass[pageClass] = (this.scanned.byClass[pageClass] ?? 0) + count;
      }
      at += span;
    }
  }
}

/** Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_INCOMPATIBLE (newer major). Damage is told in the result. */
export async function inspectImage(path: string): Promise<Inspection> {
  const { file, size } = await openImageFile(path);
  try {
    const found = new Inspector(file, size);
    await found.run();
    const { header, manifest, footer, damage, byCodec, scanned } = found;
    const counts = footer?.counts ?? namedCounts(scanned.byClass);
    return {
      path,
      fileBytes: size,
      header,
      manifest,
      root: footer?.root ?? null,
      ancestors: found.ancestors,
      mapKind: footer?.mapKind ?? null,
      contentRoot: footer?.contentRoot ?? null,
      rootHolds: found.rootHolds,
      signerKey: found.rootHolds ? (footer?.signer?.key ?? null) : null,
      committed: footer !== null,
      counts,
      chunks: {
        count: Object.values(byCodec).reduce((sum, n) => sum + n, 0),
        byCodec,
        ofDeltas: found.deltaChunks,
      },
      storedPages: footer?.storedPages ?? scanned.pages,
      memoryBytes: footer && header?.parent === null ? memoryBytesOf(counts) : null,
      ratio: size === 0 ? 0 : memoryBytesOf(counts) / size,
      damage,
    };
  } finally {
    await file.close();
  }
}

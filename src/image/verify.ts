/**
 * Verifies an image without the writer's or the reader's code: it parses every structure by itself, reads every byte,
 * decodes every block, and goes on after damage. It shares with them the constants of format.ts, and the manifest's
 * schema.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { asDormouseError, DormouseError } from '../errors.js';
import { openImageFile, readExactly } from './file.js';
import {
  BLOCK_PAGES,
  CHUNK_ENTRY_SIZE,
  CLASS_NAMES,
  CONSISTENCIES,
  FOOTER,
  FOOTER_MAGIC,
  FORMAT_MAJOR,
  HEADER,
  HEADER_MAGIC,
  KNOWN_FLAGS,
  MAX_CHUNK_BODIES,
  MAX_CHUNK_PAGES,
  MAX_CHUNK_SPAN,
  MAX_MANIFEST_BYTES,
  MAX_PFNS,
  PAGE_SIZE,
  isZero,
  wholePages,
  type Field,
} from './format.js';
import { decodeManifest, type Manifest } from './manifest.js';
import {
  hashIs,
  hexAt,
  numberAt,
  parseChunk,
  parseChunkHead,
  parseChunkTable,
  parsePageMap,
  type ChunkEntry,
  type MapRuns,
  type ParsedChunk,
} from './parse.js';
import { isSignedBy } from './signature.js';

export interface Finding {
  /** What is wrong, in a sentence. */
  readonly what: string;
  readonly chunk?: number;
  /** Byte offset in the file. */
  readonly offset?: number;
  /** Runs `[first, count]` of the pfns whose content is lost or in doubt. */
  readonly pfns?: readonly (readonly [first: number, count: number])[];
}

export interface VerifyReport {
  readonly path: string;
  /** Hex, or null where the first page is unreadable. */
  readonly imageId: string | null;
  /** The root as recomputed, or null where the index is damaged. */
  readonly root: string | null;
  readonly bytesRead: number;
  readonly chunksChecked: number;
  readonly blocksDecoded: number;
  readonly nrPfns: number;
  /** Empty for a whole image. At most 1000; `more` counts the rest. */
  readonly findings: readonly Finding[];
  readonly more: number;
}

export interface VerifyOptions {
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

const MOST_FINDINGS = 1000;
const MOST_RUNS_NAMED = 16;
type Region = 'manifest' | 'chunkTable' | 'pageMap';

class Verifier {
  readonly findings: Finding[] = [];
  more = 0;
  bytesRead = 0;
  chunksChecked = 0;
  blocksDecoded = 0;
  imageId: string | null = null;
  root: string | null = null;
  nrPfns = 0;
  /** Every chunk is read into it in turn. */
  private readonly chunkBuffer = Buffer.allocUnsafe(MAX_CHUNK_SPAN);
  private header: Buffer | undefined;
  private footer: Buffer | undefined;
  private entries: ChunkEntry[] | undefined;
  private map: MapRuns | undefined;
  private manifest: Manifest | undefined;

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
    private readonly options: VerifyOptions,
  ) {}

  async run(): Promise<void> {
    await this.readHeader();
    await this.readFooter();
    if (this.footer) await this.readRegions(this.footer);
    if (this.entries) await this.readChunks(this.entries);
    else await this.scanChunks();
    this.checkCounts();
  }

  private find(what: string, place: Omit<Finding, 'what'> = {}): void {
    if (this.findings.length < MOST_FINDINGS) this.findings.push({ what, ...place });
    else this.more++;
  }

  private async read(offset: number, size: number, into?: Buffer): Promise<Buffer> {
    if (this.options.signal?.aborted) throw new DormouseError('CANCELLED', 'verification was cancelled');
    const bytes = await readExactly(this.file, offset, size, into);
    this.bytesRead += size;
    this.options.onProgress?.(Math.min(this.bytesRead, this.size), this.size);
    return bytes;
  }

  private async readHeader(): Promise<void> {
    if (this.size < PAGE_SIZE) {
      this.find('the file is shorter than a header', { offset: this.size });
      return;
    }
    const page = await this.read(0, PAGE_SIZE);
    if (hexAt(page, HEADER.magic) !== HEADER_MAGIC) {
      this.find('the header is not one', { offset: 0 });
      return;
    }
    if (!hashIs(page.subarray(0, HEADER.checksum[0]), hexAt(page, HEADER.checksum))) {
      this.find("the header's checksum differs", { offset: 0 });
      return;
    }
    const major = numberAt(page, HEADER.major);
    const unknown = page.readBigUInt64LE(HEADER.mustUnderstand[0]) & ~KNOWN_FLAGS;
    const plain = isZero(page, HEADER.cipher[0], HEADER.cipher[0] + HEADER.cipher[1]);
    if (major !== FORMAT_MAJOR || unknown !== 0n || !plain)
      throw new DormouseError('IMAGE_INCOMPATIBLE', `format ${major}, features 0x${unknown.toString(16)}`);
    this.header = page;
    this.imageId = hexAt(page, HEADER.imageId);
    this.nrPfns = numberAt(page, HEADER.nrPfns);
    if (this.nrPfns < 1 || this.nrPfns > MAX_PFNS) this.find('the header has an impossible number of pages');
    if (!(numberAt(page, HEADER.consistency) in CONSISTENCIES))
      this.find('the header has no known consistency');
    this.checkHeaderRest(page);
  }

  private checkHeaderRest(page: Buffer): void {
    const get = (field: Field) => numberAt(page, field);
    if (!this.hasParent() && !isZero(page, HEADER.parentRoot[0], HEADER.parentRoot[0] + HEADER.parentRoot[1]))
      this.find('the header has a root without a parent');
    const sizes =
      get(HEADER.headerSize) === PAGE_SIZE &&
      get(HEADER.pageSize) === PAGE_SIZE &&
      get(HEADER.blockPages) === BLOCK_PAGES &&
      get(HEADER.maxChunkBodies) === MAX_CHUNK_BODIES &&
      get(HEADER.maxChunkPages) === MAX_CHUNK_PAGES;
    if (!sizes) throw new DormouseError('IMAGE_INCOMPATIBLE', 'its pages, blocks or chunks have other sizes');
    const { reserved0, reserved1, keyWraps, reserved2, keyWrapArea, reserved3 } = HEADER;
    this.checkReserved(page, 'header', [reserved0, reserved1, keyWraps, reserved2, keyWrapArea, reserved3]);
  }

  private checkReserved(page: Buffer, what: string, fields: readonly Field[]): void {
    const newer = numberAt(page, HEADER.minor) > 0;
    if (newer) return;
    for (const [offset, size] of fields)
      if (!isZero(page, offset, offset + size)) this.find(`reserved bytes of the ${what} are not zero`);
  }

  private async readFooter(): Promise<void> {
    const offset = this.size - PAGE_SIZE;
    if (this.size < 2 * PAGE_SIZE) {
      this.find('the file ends before a footer', { offset: this.size });
      return;
    }
    const page = await this.read(offset, PAGE_SIZE);
    if (hexAt(page, FOOTER.magic) !== FOOTER_MAGIC) {
      this.find('there is no footer: the file was cut short or never completed', { offset });
      return;
    }
    if (!hashIs(page.subarray(0, FOOTER.checksum[0]), hexAt(page, FOOTER.checksum))) {
      this.find("the footer's checksum differs", { offset });
      return;
    }
    const get = (field: Field) => numberAt(page, field);
    const table = get(FOOTER.manifestOffset) + wholePages(get(FOOTER.manifestSize));
    const map = table + wholePages(get(FOOTER.chunkCount) * CHUNK_ENTRY_SIZE);
    const tiles =
      get(FOOTER.fileSize) === this.size &&
      get(FOOTER.chunksOffset) === PAGE_SIZE &&
      get(FOOTER.major) === FORMAT_MAJOR &&
      get(FOOTER.footerSize) === PAGE_SIZE &&
      get(FOOTER.chunksEnd) === get(FOOTER.manifestOffset) &&
      get(FOOTER.chunkTableOffset) === table &&
      get(FOOTER.pageMapOffset) === map &&
      map + wholePages(get(FOOTER.pageMapSize)) + PAGE_SIZE === this.size;
    if (!tiles) {
      this.find("the footer's sizes do not make up the file", { offset });
      return;
    }
    this.checkReserved(page, 'footer', [FOOTER.reserved]);
    this.footer = page;
    this.compareFrames(page);
  }

  private compareFrames(footer: Buffer): void {
    const id = hexAt(footer, FOOTER.imageId);
    const nrPfns = numberAt(footer, FOOTER.nrPfns);
    if (this.header && (id !== this.imageId || nrPfns !== this.nrPfns))
      this.find('header and footer are of different images');
    this.imageId ??= id;
    this.nrPfns ||= nrPfns;
  }

  /** Manifest, chunk table and page map: checksum, padding, root, then what they say. */
  private async readRegions(footer: Buffer): Promise<void> {
    const root = createHash('sha256').update(this.header ?? '');
    const read = async (name: Region, size: number): Promise<Buffer | undefined> => {
      const offset = numberAt(footer, FOOTER[`${name}Offset`]);
      const span = await this.read(offset, wholePages(size));
      root.update(span);
      if (hashIs(span, hexAt(footer, FOOTER[`${name}Hash`]))) {
        if (!isZero(span, size, span.length)) this.find(`the ${name}'s padding is not zero`, { offset });
        return span.subarray(0, size);
      }
      this.find(`the ${name}'s checksum differs`, { offset });
      return undefined;
    };
    const manifest = await read('manifest', numberAt(footer, FOOTER.manifestSize));
    const table = await read('chunkTable', numberAt(footer, FOOTER.chunkCount) * CHUNK_ENTRY_SIZE);
    const map = await read('pageMap', numberAt(footer, FOOTER.pageMapSize));
    const digest = root.update(footer.subarray(0, FOOTER.root[0])).digest('hex');
    if (this.header && manifest && table && map) this.root = digest;
    if (this.root !== null && digest !== hexAt(footer, FOOTER.root))
      this.find('the root differs from what the image holds', { offset: this.size - PAGE_SIZE });
    this.checkSignature(footer);
    if (manifest) this.readManifest(manifest, footer);
    if (table) this.readTable(table, footer);
    if (map && this.entries) this.readMap(map, footer, this.entries.length);
  }

  private checkSignature(footer: Buffer): void {
    const bytes = ([offset, size]: Field) => footer.subarray(offset, offset + size);
    const signer = { key: bytes(FOOTER.signerKey), signature: bytes(FOOTER.signature) };
    const unsigned = isZero(signer.key) && isZero(signer.signature);
    if (!unsigned && !isSignedBy(bytes(FOOTER.root), signer))
      this.find('the signature is not one over the root', { offset: this.size - PAGE_SIZE });
  }

  private readManifest(bytes: Buffer, footer: Buffer): void {
    const offset = numberAt(footer, FOOTER.manifestOffset);
    if (bytes.length > MAX_MANIFEST_BYTES) {
      this.find('the manifest is too large', { offset });
      return;
    }
    try {
      this.manifest = decodeManifest(bytes);
    } catch (thrown) {
      this.find(asDormouseError(thrown).message, { offset });
      return;
    }
    if (this.manifest.geometry.nrPfns !== this.nrPfns)
      this.find('the manifest is of another size', { offset });
    const consistency = this.header && numberAt(this.header, HEADER.consistency);
    const named = CONSISTENCIES[consistency as keyof typeof CONSISTENCIES] as string | undefined;
    if (this.header && named !== this.manifest.consistency)
      this.find('header and manifest differ in consistency', { offset });
  }

  private readTable(bytes: Buffer, footer: Buffer): void {
    const offset = numberAt(footer, FOOTER.chunkTableOffset);
    const entries = parseChunkTable(bytes);
    let at = PAGE_SIZE;
    for (const entry of entries.toSorted((a, b) => a.offset - b.offset)) {
      if (
        entry.offset !== at ||
        entry.span < PAGE_SIZE ||
        entry.span > MAX_CHUNK_SPAN ||
        entry.span % PAGE_SIZE !== 0
      ) {
        this.find(`the chunk table leaves a gap or overlap at ${at}`, { offset });
        return;
      }
      at += entry.span;
    }
    if (at !== numberAt(footer, FOOTER.chunksEnd)) {
      this.find('the chunk table ends elsewhere', { offset });
      return;
    }
    this.entries = entries;
    const sum = (of: 'pages' | 'bodies') => entries.reduce((total, entry) => total + entry[of], 0);
    if (
      sum('pages') !== numberAt(footer, FOOTER.storedPages) ||
      sum('bodies') !== numberAt(footer, FOOTER.storedBodies)
    )
      this.find("the chunk table's pages are not as many as the footer says", { offset });
  }

  private readMap(bytes: Buffer, footer: Buffer, nrChunks: number): void {
    const offset = numberAt(footer, FOOTER.pageMapOffset);
    if (this.nrPfns > nrChunks * MAX_CHUNK_PAGES) {
      this.find('more pages than its chunks can hold', { offset });
      return;
    }
    const map = parsePageMap(bytes, numberAt(footer, FOOTER.pageMapRuns), this.nrPfns, nrChunks);
    if (typeof map === 'string') this.find(`the page map: ${map}`, { offset });
    else this.map = map;
  }

  /** The pfns that are lost with a chunk, as far as the map tells. */
  private pfnsOf(chunk: number): [number, number][] {
    const pfns: [number, number][] = [];
    for (const run of this.map?.ofChunk(chunk) ?? []) {
      pfns.push([this.map?.first[run] ?? 0, this.map?.count(run) ?? 0]);
      if (pfns.length === MOST_RUNS_NAMED) break;
    }
    return pfns;
  }

  private async readChunks(entries: readonly ChunkEntry[]): Promise<void> {
    const order = entries
      .map((_, i) => i)
      .sort((a, b) => (entries[a]?.offset ?? 0) - (entries[b]?.offset ?? 0));
    for (const chunk of order) {
      const entry = entries[chunk];
      if (!entry) continue;
      const bytes = await this.read(entry.offset, entry.span, this.chunkBuffer);
      const wrong = hashIs(bytes, entry.hash) ? this.checkChunk(bytes, chunk, entry) : 'its checksum differs';
      this.chunksChecked++;
      if (wrong !== null)
        this.find(`chunk ${chunk}: ${wrong}`, { chunk, offset: entry.offset, pfns: this.pfnsOf(chunk) });
    }
  }

  private checkChunk(bytes: Buffer, chunk: number, entry: ChunkEntry): string | null {
    const parsed = parseChunk(bytes);
    if (typeof parsed === 'string') return parsed;
    const { head } = parsed;
    this.blocksDecoded += parsed.blocksDecoded;
    if (head.imageId !== this.imageId || head.chunk !== chunk) return 'it belongs elsewhere';
    if (head.pages !== entry.pages || head.bodies !== entry.bodies) return 'the chunk table has other counts';
    return this.checkRuns(parsed, chunk);
  }

  /** Every page the map seeks in this chunk must be at its slot, with its class and type. */
  private checkRuns({ runs, head }: ParsedChunk, chunk: number): string | null {
    const pfns = new Float64Array(head.pages);
    const kinds = new Uint8Array(head.pages);
    for (const run of runs) {
      if (run.first + run.count > this.nrPfns) return `pfn ${run.first} is beyond the image`;
      if (CLASS_NAMES[run.pageClass] === 'sameAsParent' && !this.hasParent()) return 'it refers to no parent';
      for (let i = 0; i < run.count; i++) {
        pfns[run.slot + i] = run.first + i;
        kinds[run.slot + i] = run.pageClass | (run.type << 4);
      }
    }
    const { map } = this;
    for (const run of map?.ofChunk(chunk) ?? []) {
      const first = map?.first[run] ?? 0;
      const slot = map?.slot[run] ?? 0;
      const count = map?.count(run) ?? 0;
      for (let i = 0; i < count; i++)
        if (pfns[slot + i] !== first + i || kinds[slot + i] !== map?.kind[run])
          return `the page map seeks pfn ${first + i} in slot ${slot + i}, where it is not`;
    }
    return null;
  }

  private hasParent(): boolean {
    return this.header !== undefined && !isZero(this.header, HEADER.parentId[0], HEADER.parentId[0] + 16);
  }

  /** Without a chunk table: goes from header to header. Checksums are lost, blocks are decoded all the same. */
  private async scanChunks(): Promise<void> {
    const end = this.footer ? numberAt(this.footer, FOOTER.chunksEnd) : this.size;
    for (let at = PAGE_SIZE; at + PAGE_SIZE <= end;) {
      const head = parseChunkHead(await this.read(at, PAGE_SIZE));
      const span = head?.span ?? 0;
      if (!head || span % PAGE_SIZE !== 0 || span > MAX_CHUNK_SPAN || at + span > end) {
        at += PAGE_SIZE;
        continue;
      }
      this.bytesRead -= PAGE_SIZE;
      const parsed = parseChunk(await this.read(at, span, this.chunkBuffer));
      this.chunksChecked++;
      if (typeof parsed === 'string')
        this.find(`chunk ${head.chunk}: ${parsed}`, { chunk: head.chunk, offset: at });
      else this.blocksDecoded += parsed.blocksDecoded;
      at += span;
    }
  }

  private checkCounts(): void {
    const { map, footer, manifest } = this;
    if (!map || !footer) return;
    const counts = new Array<number>(CLASS_NAMES.length).fill(0);
    for (let run = 0; run < map.length; run++)
      counts[map.pageClass(run)] = (counts[map.pageClass(run)] ?? 0) + map.count(run);
    CLASS_NAMES.forEach((name, i) => {
      const offset = FOOTER.classCounts[0] + 8 * i;
      if (numberAt(footer, [offset, 8]) !== counts[i])
        this.find(
          `the footer counts ${numberAt(footer, [offset, 8])} pages of class ${name}, the page map ${counts[i]}`,
        );
      if (manifest && name !== 'absent' && manifest.pages[name] !== counts[i])
        this.find(
          `the manifest counts ${manifest.pages[name]} pages of class ${name}, the page map ${counts[i]}`,
        );
    });
  }
}

/**
 * Reads all of the file. Damage is reported, not thrown; errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED,
 * IMAGE_INCOMPATIBLE (a format this version cannot judge), CANCELLED.
 */
export async function verifyImage(path: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const { file, size } = await openImageFile(path);
  try {
    const verifier = new Verifier(file, size, options);
    await verifier.run();
    const { imageId, root, bytesRead, chunksChecked, blocksDecoded, nrPfns, findings, more } = verifier;
    return { path, imageId, root, bytesRead, chunksChecked, blocksDecoded, nrPfns, findings, more };
  } finally {
    await file.close();
  }
}

/**
 * One file of an image, verified without the writer's or the reader's code: every structure is parsed anew, every byte
 * read, every block decoded, and damage is listed, not thrown.
 */
import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { asDormouseError, DormouseError } from '../errors.js';
import { whyNoFooter } from './behind_footer.js';
import { readExactly } from './file.js';
import {
  BLOCK_PAGES,
  CHUNK_DIGEST_SIZE,
  CHUNK_ENTRY_SIZE,
  CLASS_SLOTS,
  CONSISTENCIES,
  FLAG_CHUNK_DIGESTS,
  FLAG_DELTAS,
  FLAG_PAGE_HASHES,
  FLAG_PARENT,
  FOOTER,
  FOOTER_MAGIC,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  FORMER_HEADER_MAGIC,
  HEADER,
  HEADER_MAGIC,
  KNOWN_FLAGS,
  MAP_KINDS,
  MAX_CHUNK_BODIES,
  MAX_CHUNK_PAGES,
  MAX_CHUNK_SPAN,
  MAX_PFNS,
  PAGE_HASH_SIZE,
  isZero,
  wholePages,
  type Field,
  type Region,
} from './format.js';
import { decodeManifest, type Manifest } from './manifest.js';
import {
  hashIs,
  hexAt,
  isOfUnknownKind,
  mostRegionBytes,
  numberAt,
  parseAncestors,
  parseChunk,
  parseChunkHead,
  parseChunkTable,
  parsePageMap,
  type ChunkEntry,
  type DeltaBase,
  type MapRuns,
  type NamedFile,
} from './parse.js';
import { isSignedBy } from './signature.js';
import { checkRuns, countOwn, pfnsOf, slotsOf, type Sought } from './verify_chunk.js';
import { whyNoTable, wrongHashesOf } from './verify_chunk.js';
import { BaseChunks, checkDeltas } from './verify_delta.js';
import type { Finding } from './finding.js';
import { tiles } from './verify_frame.js';
import { sha256 } from './sha256.js';
import { pageBytes } from '../pfn/page_words.js';
import { classNames } from '../pfn/counts.js';

/** What a file needs of who verifies the image. */
export interface VerifyContext {
  find(finding: Finding): void;
  /** So many bytes more were read. CANCELLED. */
  read(bytes: number): void;
  /** What a delta of that file rests on. */
  basePage(of: FileVerifier, base: DeltaBase, pfn: number, kind: number): Promise<Buffer | string | null>;
}

export class FileVerifier {
  chunksChecked = 0;
  blocksDecoded = 0;
  imageId: string | null = null;
  root: string | null = null;
  nrPfns = 0;
  sequence = 0;
  chainId: string | null = null;
  map: MapRuns | undefined;
  isFull = true;
  ancestors: readonly NamedFile[] = [];
  footer: Buffer | undefined;
  hasDigests = false;
  /** By chunk: index of its first page among all pages in chunks. */
  readonly firstPage: number[] = [];
  /** As stored, 16 bytes a page. */
  pageHashes: Buffer | undefined;
  private newer = false;
  private header: Buffer | undefined;
  private entries: ChunkEntry[] | undefined;
  private manifest: Manifest | undefined;
  private digests: Buffer | undefined;
  private readonly bases = new BaseChunks();
  /** Every chunk is read into it in turn. */
  private readonly chunkBuffer = Buffer.allocUnsafe(MAX_CHUNK_SPAN);

  /** `path`: for findings; undefined for the image's own file. */
  constructor(
    private readonly file: FileHandle,
    readonly size: number,
    private readonly context: VerifyContext,
    private readonly path?: string,
  ) {}

  find(what: string, place: Omit<Finding, 'what'> = {}): void {
    this.context.find({ what, ...(this.path !== undefined && { path: this.path }), ...place });
  }

  private async read(offset: number, size: number, into?: Buffer): Promise<Buffer> {
    const bytes = await readExactly(this.file, offset, size, into);
    this.context.read(size);
    return bytes;
  }

  /** Header, footer and all between chunks and footer. IMAGE_INCOMPATIBLE. */
  async readFrame(): Promise<void> {
    await this.readHeader();
    await this.readFooter();
    if (this.footer) await this.readRegions(this.footer);
    this.checkCounts();
  }

  private needs(flag: bigint): boolean {
    return ((this.header?.readBigUInt64LE(HEADER.mustUnderstand[0]) ?? 0n) & flag) !== 0n;
  }

  get hasParent(): boolean {
    return this.needs(FLAG_PARENT);
  }

  private async readHeader(): Promise<void> {
    if (this.size < pageBytes) {
      this.find('the file is shorter than a header', { offset: this.size });
      return;
    }
    const page = await this.read(0, pageBytes);
    if (hexAt(page, HEADER.magic) === FORMER_HEADER_MAGIC)
      throw new DormouseError('IMAGE_INCOMPATIBLE', 'the layout from before format 1 was settled');
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
    if (major !== FORMAT_MAJOR || unknown !== 0n || numberAt(page, HEADER.cipher) !== 0)
      throw new DormouseError('IMAGE_INCOMPATIBLE', `format ${major}, features 0x${unknown.toString(16)}`);
    this.header = page;
    this.imageId = hexAt(page, HEADER.imageId);
    this.chainId = hexAt(page, HEADER.chainId);
    this.sequence = numberAt(page, HEADER.sequence);
    this.nrPfns = numberAt(page, HEADER.nrPfns);
    this.newer = numberAt(page, HEADER.minor) > FORMAT_MINOR;
    if (this.nrPfns < 1 || this.nrPfns > MAX_PFNS) this.find('the header has an impossible number of pages');
    if (!(numberAt(page, HEADER.consistency) in CONSISTENCIES))
      this.find('the header has no known consistency');
    this.checkHeaderRest(page);
  }

  private checkHeaderRest(page: Buffer): void {
    const get = (field: Field) => numberAt(page, field);
    const sizes =
      get(HEADER.headerSize) === pageBytes &&
      get(HEADER.pageSize) === pageBytes &&
      get(HEADER.blockPages) === BLOCK_PAGES &&
      get(HEADER.maxChunkBodies) === MAX_CHUNK_BODIES &&
      get(HEADER.maxChunkPages) === MAX_CHUNK_PAGES;
    if (!sizes) throw new DormouseError('IMAGE_INCOMPATIBLE', 'its pages, blocks or chunks have other sizes');
    const { reserved0, reserved1, keyWraps, reserved2, keyWrapArea, reserved3 } = HEADER;
    this.checkReserved(page, 'header', [reserved0, reserved1, keyWraps, reserved2, keyWrapArea, reserved3]);
    const zero = ([offset, size]: Field) => isZero(page, offset, offset + size);
    const alone = !this.hasParent;
    const lineage = [
      zero(HEADER.parentId),
      zero(HEADER.parentRoot),
      this.sequence === 0,
      this.chainId === this.imageId,
    ];
    if (lineage.some((says) => says !== alone))
      this.find('the header contradicts itself on whether there is a parent');
  }

  private checkReserved(page: Buffer, what: string, fields: readonly Field[]): void {
    if (numberAt(page, HEADER.minor) > FORMAT_MINOR) return;
    for (const [offset, size] of fields)
      if (!isZero(page, offset, offset + size)) this.find(`reserved bytes of the ${what} are not zero`);
  }

  private async readFooter(): Promise<void> {
    const offset = this.size - pageBytes;
    if (this.size < 2 * pageBytes) {
      this.find('the file ends before a footer', { offset: this.size });
      return;
    }
    const page = await this.read(offset, pageBytes);
    if (hexAt(page, FOOTER.magic) !== FOOTER_MAGIC) {
      this.find(await whyNoFooter(this.file, this.size), { offset });
      return;
    }
    if (!hashIs(page.subarray(0, FOOTER.checksum[0]), hexAt(page, FOOTER.checksum))) {
      this.find("the footer's checksum differs", { offset });
      return;
    }
    if (!tiles(page, this.size)) {
      this.find("the footer's sizes do not make up the file", { offset });
      return;
    }
    const [countsAt] = FOOTER.classCounts;
    const known = 8 * classNames.length;
    const free: Field = [countsAt + known, 8 * CLASS_SLOTS - known];
    this.checkReserved(page, 'footer', [FOOTER.reserved0, free, FOOTER.reserved1]);
    this.footer = page;
    this.compareFrames(page);
  }

  private compareFrames(footer: Buffer): void {
    const id = hexAt(footer, FOOTER.imageId);
    const nrPfns = numberAt(footer, FOOTER.nrPfns);
    const get = (field: Field) => numberAt(footer, field);
    const kind = MAP_KINDS[get(FOOTER.mapKind) as keyof typeof MAP_KINDS] as string | undefined;
    this.isFull = kind === 'full';
    const { header } = this;
    if (kind === undefined) this.find('the footer has an unknown kind of page map');
    if (header) {
      const minors = get(FOOTER.minor) === numberAt(header, HEADER.minor);
      if (id !== this.imageId || nrPfns !== this.nrPfns || !minors)
        this.find('header and footer are of different images');
      const flags = header.readBigUInt64LE(HEADER.mayIgnore[0]);
      this.hasDigests = (flags & FLAG_CHUNK_DIGESTS) !== 0n;
      const hashes = (flags & FLAG_PAGE_HASHES) !== 0n ? get(FOOTER.storedPages) * PAGE_HASH_SIZE : 0;
      const digests = this.hasDigests ? get(FOOTER.chunkCount) * CHUNK_DIGEST_SIZE : 0;
      const sizes =
        get(FOOTER.pageHashesSize) === hashes &&
        get(FOOTER.chunkDigestsSize) === digests &&
        get(FOOTER.chunkTableSize) === get(FOOTER.chunkCount) * CHUNK_ENTRY_SIZE &&
        get(FOOTER.ancestorsSize) > 0 === this.hasParent;
      if (!sizes) this.find('regions have other sizes than header and footer say');
      if (!this.hasParent && !this.isFull) this.find('it leaves pages to a parent that it has not');
      if (this.needs(FLAG_DELTAS) && ((flags & FLAG_PAGE_HASHES) === 0n || !this.hasParent))
        this.find('it has deltas, but no parent or no page hashes');
      if ((flags & FLAG_PAGE_HASHES) === 0n && !this.lacks(FOOTER.contentRoot))
        this.find('it has a content root but no page hashes');
    }
    this.imageId ??= id;
    this.nrPfns ||= nrPfns;
  }

  private lacks([offset, size]: Field): boolean {
    return !this.footer || isZero(this.footer, offset, offset + size);
  }

  private async region(footer: Buffer, name: Region): Promise<Buffer | undefined> {
    const offset = numberAt(footer, FOOTER[`${name}Offset`]);
    const size = numberAt(footer, FOOTER[`${name}Size`]);
    if (size > mostRegionBytes(footer, name)) {
      this.find(`its ${name} is larger than it can be`, { offset });
      return undefined;
    }
    const span = await this.read(offset, wholePages(size));
    if (sha256(span) !== hexAt(footer, FOOTER[`${name}Hash`])) {
      this.find(`the hash of its ${name} differs`, { offset });
      return undefined;
    }
    if (!isZero(span.subarray(size))) this.find(`the padding of its ${name} is not zero`, { offset });
    return span.subarray(0, size);
  }

  private async readRegions(footer: Buffer): Promise<void> {
    this.checkRoot(footer);
    const manifest = await this.region(footer, 'manifest');
    const ancestors = await this.region(footer, 'ancestors');
    const table = await this.region(footer, 'chunkTable');
    const map = await this.region(footer, 'pageMap');
    if (this.hasPageHashes()) this.pageHashes = await this.region(footer, 'pageHashes');
    if (this.hasDigests) this.digests = await this.region(footer, 'chunkDigests');
    await this.readRest(footer);
    if (manifest) this.readManifest(manifest, footer);
    if (ancestors) this.readAncestors(ancestors, footer);
    if (table) this.readTable(table, footer);
    if (map && ancestors && this.entries) this.readMap(map, footer, this.entries.length);
  }

  private hasPageHashes(): boolean {
    return this.footer !== undefined && numberAt(this.footer, FOOTER.pageHashesSize) > 0;
  }

  /** What a newer minor version has behind the regions that this one knows. */
  private async readRest(footer: Buffer): Promise<void> {
    const end =
      numberAt(footer, FOOTER.chunkDigestsOffset) + wholePages(numberAt(footer, FOOTER.chunkDigestsSize));
    for (let at = end; at < this.size - pageBytes; at += pageBytes) await this.read(at, pageBytes);
  }

  private checkRoot(footer: Buffer): void {
    const offset = this.size - pageBytes;
    if (!this.header) return;
    const digest = createHash('sha256').update(this.header).update(footer.subarray(0, FOOTER.root[0]));
    this.root = digest.digest('hex');
    if (this.root !== hexAt(footer, FOOTER.root))
      this.find('the root differs from what the image holds', { offset });
    const bytes = ([at, size]: Field) => footer.subarray(at, at + size);
    const signer = { key: bytes(FOOTER.signerKey), signature: bytes(FOOTER.signature) };
    if (isZero(signer.key) && isZero(signer.signature)) return;
    if (!isSignedBy(bytes(FOOTER.root), signer))
      this.find('the signature is not one over the root', { offset });
    if (!this.hasDigests) this.find('it is signed but has no digests that the signature could vouch for');
  }

  get isSigned(): boolean {
    return !this.lacks(FOOTER.signerKey);
  }

  private readManifest(bytes: Buffer, footer: Buffer): void {
    const offset = numberAt(footer, FOOTER.manifestOffset);
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

  private readAncestors(bytes: Buffer, footer: Buffer): void {
    const offset = numberAt(footer, FOOTER.ancestorsOffset);
    const files = parseAncestors(bytes, this.newer);
    if (typeof files === 'string') {
      this.find(`the table of ancestors: ${files}`, { offset });
      return;
    }
    this.ancestors = files;
    const [parent] = files;
    if (!this.header || !this.hasParent) return;
    const fits =
      parent?.imageId === hexAt(this.header, HEADER.parentId) &&
      parent.root === hexAt(this.header, HEADER.parentRoot) &&
      parent.sequence === this.sequence - 1 &&
      files.every(({ sequence }) => sequence < this.sequence);
    if (!fits) this.find('the table of ancestors contradicts the header', { offset });
  }

  private readTable(bytes: Buffer, footer: Buffer): void {
    const offset = numberAt(footer, FOOTER.chunkTableOffset);
    const entries = parseChunkTable(bytes);
    const wrong = whyNoTable(entries, numberAt(footer, FOOTER.chunksEnd), this.newer);
    if (wrong !== null) {
      this.find(wrong, { offset });
      return;
    }
    this.entries = entries;
    let pages = 0;
    for (const entry of entries) {
      this.firstPage.push(pages);
      pages += entry.pages;
    }
    if (pages !== numberAt(footer, FOOTER.storedPages))
      this.find("the chunk table's pages are not as many as the footer says", { offset });
  }

  private readMap(bytes: Buffer, footer: Buffer, nrChunks: number): void {
    const offset = numberAt(footer, FOOTER.pageMapOffset);
    const map = parsePageMap(bytes, {
      nrRuns: numberAt(footer, FOOTER.pageMapRuns),
      ...{ nrPfns: this.nrPfns, nrChunks, sparse: !this.isFull, newer: this.newer },
      sources: this.isFull ? 1 + this.ancestors.length : 1,
    });
    if (typeof map === 'string') this.find(`the page map: ${map}`, { offset });
    else this.map = map;
  }

  /** Whether the chunk table has such a chunk with so many pages; true where there is no table to tell. */
  hasSlots(chunk: number, slot: number, count: number): boolean {
    return this.entries === undefined || slot + count <= (this.entries[chunk]?.pages ?? 0);
  }

  /**
   * Every chunk: checksum, digest, structure, page hashes, and that the pages are there which the image seeks in it, and the file's own
   * map. `image` null: that cannot be told.
   */
  async readChunks(image: Sought | null): Promise<void> {
    const own = this.map ? [{ map: this.map, source: 0 }] : [];
    const sought = image ? [image, ...own] : own;
    const { entries } = this;
    if (!entries) {
      await this.scanChunks();
      return;
    }
    const order = entries
      .map((_, i) => i)
      .sort((a, b) => (entries[a]?.offset ?? 0) - (entries[b]?.offset ?? 0));
    for (const chunk of order) {
      const entry = entries[chunk];
      if (!entry) continue;
      const bytes = await this.read(entry.offset, entry.span, this.chunkBuffer);
      const needed = image ? slotsOf(chunk, image) : new Set<number>();
      const wrong = await this.judge(bytes, chunk, entry, { sought, needed });
      this.chunksChecked++;
      if (wrong !== null)
        this.find(`chunk ${chunk}: ${wrong}`, {
          ...{ chunk, offset: entry.offset, pfns: pfnsOf(chunk, sought) },
        });
    }
  }

  /** A page of this file that a delta of another rests on; or a sentence about why there is none. */
  async basePage(base: DeltaBase, pfn: number, kind: number): Promise<Buffer | string> {
    const entry = this.entries?.[base.chunk];
    if (!entry) return 'rests on a chunk that is not there';
    return await this.bases.page(this.file, entry, base, pfn, kind);
  }

  private async judge(
    bytes: Buffer,
    chunk: number,
    entry: ChunkEntry,
    { sought, needed }: { readonly sought: readonly Sought[]; readonly needed: ReadonlySet<number> },
  ): Promise<string | null> {
    if (!hashIs(bytes, entry.hash)) return 'its checksum differs';
    if (isOfUnknownKind(bytes))
      throw new DormouseError(
        'IMAGE_INCOMPATIBLE',
        `chunk ${chunk} is of a kind or codec of a newer dormouse`,
      );
    const digest = this.digests?.subarray(chunk * CHUNK_DIGEST_SIZE, (chunk + 1) * CHUNK_DIGEST_SIZE);
    if (digest && !createHash('sha256').update(bytes).digest().equals(digest)) return 'its digest differs';
    const hashes = this.pageHashes?.subarray((this.firstPage[chunk] ?? 0) * PAGE_HASH_SIZE);
    const wrongHashes: number[] = [];
    const changes: Buffer[] = [];
    const isDeltas = parseChunkHead(bytes)?.isDeltas === true;
    const parsed = parseChunk(bytes, this.needs(FLAG_DELTAS), (first, pages) => {
      if (isDeltas) changes.push(Buffer.from(pages));
      else if (hashes) wrongHashes.push(...wrongHashesOf(hashes, first, pages));
    });
    if (typeof parsed === 'string') return parsed;
    const { head } = parsed;
    this.blocksDecoded += parsed.blocksDecoded;
    if (!head.plain && !this.newer) return 'reserved bytes of it are not zero';
    if (head.pages !== entry.pages || head.bodies !== entry.pages) return 'the chunk table has other counts';
    if (wrongHashes[0] !== undefined) return `the page in slot ${wrongHashes[0]} has another hash`;
    if (isDeltas) {
      if (!hashes) return 'it holds deltas, and there are no hashes of their pages';
      const wrong = await checkDeltas(parsed, changes, hashes, needed, (...base) =>
        this.context.basePage(this, ...base),
      );
      if (wrong !== null) return wrong;
    }
    return checkRuns(parsed, chunk, this.nrPfns, sought);
  }

  /** Without a chunk table: goes from header to header. Checksums are lost, blocks are decoded all the same. */
  private async scanChunks(): Promise<void> {
    const end = this.footer ? numberAt(this.footer, FOOTER.chunksEnd) : this.size;
    for (let at = pageBytes; at + pageBytes <= end;) {
      const head = parseChunkHead(await this.read(at, pageBytes));
      const span = head?.span ?? 0;
      if (!head || span % pageBytes !== 0 || span > MAX_CHUNK_SPAN || at + span > end) {
        at += pageBytes;
        continue;
      }
      this.context.read(-pageBytes);
      const parsed = parseChunk(await this.read(at, span, this.chunkBuffer), this.needs(FLAG_DELTAS));
      this.chunksChecked++;
      if (typeof parsed === 'string') this.find(`a chunk: ${parsed}`, { offset: at });
      else this.blocksDecoded += parsed.blocksDecoded;
      at += span;
    }
  }

  private checkCounts(): void {
    const { map, footer, manifest } = this;
    if (!map || !footer) return;
    const counts = countOwn(map);
    classNames.forEach((name, i) => {
      const said = numberAt(footer, [FOOTER.classCounts[0] + 8 * i, 8]);
      if (said !== counts[i])
        this.find(`the footer counts ${said} pages of class ${name}, the page map ${counts[i]}`);
      if (manifest && name !== 'absent' && manifest.pages[name] !== counts[i])
        this.find(
          `the manifest counts ${manifest.pages[name]} pages of class ${name}, the page map ${counts[i]}`,
        );
    });
  }
}

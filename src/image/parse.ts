/**
 * Parses every structure of an image from its bytes alone, and says what is wrong instead of throwing: for verify and
 * inspect. Shares nothing with writer and reader but the constants of format.ts.
 */
import { lz4Decompress, lz4DecompressInto } from '../codec/lz4.js';
import { hasBody, tableLevel } from '../pfn/page_type.js';
import { hash128 } from '../pfn/page_scan.js';
import {
  ANCESTOR,
  ANCESTOR_SIZE,
  BLOCK_PAGES,
  CHUNK_KIND_DELTAS,
  CHUNK_ENTRY,
  CHUNK_ENTRY_SIZE,
  CHUNK_HEADER,
  CHUNK_HEADER_SIZE,
  CHUNK_KIND_PAGES,
  CHUNK_MAGIC,
  CHUNK_RUN,
  CHUNK_RUN_SIZE,
  CODECS,
  DELTA_BASE,
  DELTA_BASE_SIZE,
  MAP_BLOCK,
  MAP_BLOCK_RUNS,
  MAP_BLOCK_SIZE,
  MAP_RUN,
  MAP_RUN_SIZE,
  MAX_ANCESTORS,
  MAX_CHUNK_BODIES,
  MAX_CHUNK_PAGES,
  MAX_DELTA_AGE,
  STORED_FLAG,
  isZero,
  textAt,
  wholePages,
  type Field,
  FOOTER,
  MAX_MANIFEST_BYTES,
  CHUNK_DIGEST_SIZE,
  PAGE_HASH_SIZE,
  type Region,
} from './format.js';
import { pageBytes, classOf, joined, pfnOf, typeOf } from '../pfn/page_words.js';
import { classNames } from '../pfn/counts.js';

/** A field as a number; infinite if it exceeds 2^53, so that every comparison with a limit fails. */
export function numberAt(bytes: Buffer, [offset, size]: Field, base = 0): number {
  if (size !== 8) return bytes.readUIntLE(base + offset, size);
  const value = bytes.readBigUInt64LE(base + offset);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : Infinity;
}

export const hexAt = (bytes: Buffer, [offset, size]: Field, base = 0): string =>
  bytes.toString('hex', base + offset, base + offset + size);

/** Whether a 16-byte stored checksum (little-endian XXH3-128) is that of these bytes. */
export function hashIs(bytes: Buffer, stored: string): boolean {
  const low = hash128(bytes).slice(16);
  const high = hash128(bytes).slice(0, 16);
  const swap = (half: string) => Buffer.from(half, 'hex').reverse().toString('hex');
  return swap(low) + swap(high) === stored;
}

/** Whether a page of this type may have this class (by number). */
export function classFits(pageClass: number, type: number): boolean {
  const name = classNames[pageClass];
  if (name === 'data' || name === 'zero') return hasBody(type) && tableLevel(type) === 0;
  if (name === 'table') return tableLevel(type) > 0;
  return (
    (name === 'noFrame' && type === 15) ||
    (name === 'broken' && type === 13) ||
    (name === 'alloc' && type === 14)
  );
}

export interface ChunkEntry {
  readonly offset: number;
  readonly span: number;
  readonly pages: number;
  readonly reserved: number;
  readonly hash: string;
}

export function parseChunkTable(bytes: Buffer): ChunkEntry[] {
  return Array.from({ length: bytes.length / CHUNK_ENTRY_SIZE }, (_, i) => {
    const at = i * CHUNK_ENTRY_SIZE;
    return {
      offset: numberAt(bytes, CHUNK_ENTRY.offset, at),
      span: numberAt(bytes, CHUNK_ENTRY.span, at),
      pages: numberAt(bytes, CHUNK_ENTRY.pages, at),
      reserved: numberAt(bytes, CHUNK_ENTRY.reserved, at),
      hash: hexAt(bytes, CHUNK_ENTRY.hash, at),
    };
  });
}

export interface ChunkHead {
  readonly isDeltas: boolean;
  readonly codec: string;
  /** Whether all that no version 1.0 writer sets is zero. */
  readonly plain: boolean;
  readonly span: number;
  readonly pages: number;
  readonly bodies: number;
  readonly runs: number;
  readonly blocks: number;
  readonly payloadSize: number;
}

const isKind = (kind: number): boolean => kind === CHUNK_KIND_PAGES || kind === CHUNK_KIND_DELTAS;

/** The 64 bytes at the start of a chunk, or null if they are not such a header. */
export function parseChunkHead(bytes: Buffer): ChunkHead | null {
  if (bytes.length < CHUNK_HEADER_SIZE || hexAt(bytes, CHUNK_HEADER.magic) !== CHUNK_MAGIC) return null;
  const get = (name: keyof typeof CHUNK_HEADER) => numberAt(bytes, CHUNK_HEADER[name]);
  const head = {
    isDeltas: get('kind') === CHUNK_KIND_DELTAS,
    codec: CODECS[get('codec')] ?? `codec ${get('codec')}`,
    plain: isZero(bytes, CHUNK_HEADER.salt[0], CHUNK_HEADER_SIZE),
    span: get('span'),
    pages: get('pages'),
    bodies: get('bodies'),
    runs: get('runs'),
    blocks: get('blocks'),
    payloadSize: get('payloadSize'),
  };
  const fixed = isKind(get('kind')) && get('headerSize') === CHUNK_HEADER_SIZE;
  return fixed && get('codec') < CODECS.length && head.span >= pageBytes ? head : null;
}

/** Whether the chunk is of a kind or codec that this version does not know: not damage. */
export function isOfUnknownKind(bytes: Buffer): boolean {
  if (bytes.length < CHUNK_HEADER_SIZE || hexAt(bytes, CHUNK_HEADER.magic) !== CHUNK_MAGIC) return false;
  const [kind, codec] = [numberAt(bytes, CHUNK_HEADER.kind), numberAt(bytes, CHUNK_HEADER.codec)];
  return !isKind(kind) || codec >= CODECS.length;
}

/** Consecutive pfns of one class and type, at consecutive slots from `slot`. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
  readonly pageClass: number;
  readonly type: number;
  readonly slot: number;
}

/** What a delta rests on: the page in that slot of that chunk of the file that is so many images older. */
export interface DeltaBase {
  readonly chunk: number;
  readonly slot: number;
  readonly age: number;
}

export interface ParsedChunk {
  readonly head: ChunkHead;
  readonly runs: readonly PageRun[];
  readonly blocksDecoded: number;
  /** Of a chunk of deltas, by slot; else empty. */
  readonly bases: readonly DeltaBase[];
}

/** A delta is a block of its own. */
const pagesABlock = (head: ChunkHead): number => (head.isDeltas ? 1 : BLOCK_PAGES);
const basesSize = (head: ChunkHead): number => (head.isDeltas ? DELTA_BASE_SIZE * head.bodies : 0);

const withBody = (pageClass: number): boolean =>
  classNames[pageClass] === 'data' || classNames[pageClass] === 'table';

function checkCounts(head: ChunkHead, size: number): string | null {
  const { pages, bodies, runs, blocks, payloadSize, span } = head;
  if (span !== size) return `its header says ${span} bytes`;
  if (pages < 1 || pages > MAX_CHUNK_PAGES || bodies > MAX_CHUNK_BODIES || bodies > pages)
    return `it counts ${pages} pages and ${bodies} bodies`;
  if (runs < 1 || runs > pages || blocks !== Math.ceil(bodies / pagesABlock(head)))
    return `it counts ${runs} runs and ${blocks} blocks`;
  const used = CHUNK_HEADER_SIZE + payloadSize + 4 * blocks + CHUNK_RUN_SIZE * runs + basesSize(head);
  return wholePages(used) === size ? null : 'its lengths do not add up';
}

function readRuns(bytes: Buffer, head: ChunkHead, at: number): PageRun[] | string {
  const runs: PageRun[] = [];
  let slot = 0;
  let bodies = 0;
  for (let i = 0; i < head.runs; i++, at += CHUNK_RUN_SIZE) {
    const word = bytes.readBigUInt64LE(at + CHUNK_RUN.desc[0]);
    const count = numberAt(bytes, CHUNK_RUN.count, at);
    const first = pfnOf(word);
    const pageClass = classOf(word);
    const type = typeOf(word);
    if (((word >> 52n) & 15n) !== 0n || count < 1 || !classFits(pageClass, type))
      return `run ${i} is not possible`;
    if (head.isDeltas && classNames[pageClass] !== 'data') return `run ${i} is of deltas and has none`;
    runs.push({ first, count, pageClass, type, slot });
    slot += count;
    if (withBody(pageClass)) bodies += count;
  }
  return slot === head.pages && bodies === head.bodies ? runs : 'its runs do not add up';
}

function readBases(bytes: Buffer, head: ChunkHead, at: number): DeltaBase[] | string {
  const bases: DeltaBase[] = [];
  for (const end = at + basesSize(head); at < end; at += DELTA_BASE_SIZE) {
    const get = (name: keyof typeof DELTA_BASE) => numberAt(bytes, DELTA_BASE[name], at);
    const base = { chunk: get('chunk'), slot: get('slot'), age: get('age') };
    if (base.age < 1 || base.age > MAX_DELTA_AGE || base.slot >= MAX_CHUNK_BODIES)
      return `delta ${bases.length} rests on an impossible page`;
    bases.push(base);
  }
  return bases;
}

const decoded = Buffer.allocUnsafe(BLOCK_PAGES * pageBytes);

/** What a decoded block holds: the pages from slot `first` on, or the change that a delta makes, in a buffer that the next one overwrites. */
export type BlockVisitor = (first: number, pages: Buffer) => void;

/** Decodes every block. Returns how many, or what is wrong. */
function readBlocks(
  bytes: Buffer,
  head: ChunkHead,
  tableAt: number,
  visit: BlockVisitor | undefined,
): number | string {
  let at = CHUNK_HEADER_SIZE;
  let compressed = false;
  for (let block = 0; block < head.blocks; block++) {
    const word = bytes.readUInt32LE(tableAt + 4 * block);
    const first = block * pagesABlock(head);
    const raw = pageBytes * Math.min(pagesABlock(head), head.bodies - first);
    const isStored = word >= STORED_FLAG;
    const size = isStored ? word - STORED_FLAG : word;
    if (isStored ? size !== raw || head.isDeltas : size < 1 || size >= raw || at + size > tableAt)
      return `block ${block} has an impossible length`;
    const stored = bytes.subarray(at, at + size);
    if (!isStored && !lz4DecompressInto(stored, decoded.subarray(0, raw)))
      return `block ${block} does not decode`;
    visit?.(first, isStored ? stored : decoded.subarray(0, raw));
    compressed ||= !isStored;
    at += size;
  }
  if (at !== tableAt) return 'its block lengths do not add up';
  const codec = compressed ? 'lz4' : 'none';
  return codec === head.codec ? head.blocks : `it is marked ${head.codec} but is ${codec}`;
}

/** A whole chunk, every block decoded; or a sentence about what is wrong with it. `deltas`: it may be one of deltas. */
export function parseChunk(bytes: Buffer, deltas: boolean, visit?: BlockVisitor): ParsedChunk | string {
  const head = parseChunkHead(bytes);
  if (!head) return 'it does not begin with a chunk header';
  if (head.isDeltas && !deltas) return 'it holds deltas where there can be none';
  const wrong = checkCounts(head, bytes.length);
  if (wrong !== null) return wrong;
  const tableAt = CHUNK_HEADER_SIZE + head.payloadSize;
  const runsAt = tableAt + 4 * head.blocks;
  const runs = readRuns(bytes, head, runsAt);
  if (typeof runs === 'string') return runs;
  const basesAt = runsAt + CHUNK_RUN_SIZE * head.runs;
  const bases = readBases(bytes, head, basesAt);
  if (typeof bases === 'string') return bases;
  if (!isZero(bytes, basesAt + basesSize(head), bytes.length)) return 'its padding is not zero';
  const blocksDecoded = readBlocks(bytes, head, tableAt, visit);
  return typeof blocksDecoded === 'string' ? blocksDecoded : { head, runs, blocksDecoded, bases };
}

/** The page map's runs in columns: 18 bytes a run. */
export class MapRuns {
  length = 0;
  /** Pages covered; one more run begins here. */
  covered = 0;
  first = new Uint32Array(1024);
  chunk = new Uint32Array(1024);
  slot = new Uint16Array(1024);
  source = new Uint16Array(1024);
  kind = new Uint8Array(1024);
  private order: Uint32Array | undefined;

  count(run: number): number {
    return (run + 1 < this.length ? (this.first[run + 1] ?? 0) : this.covered) - (this.first[run] ?? 0);
  }
  pageClass = (run: number): number => (this.kind[run] ?? 0) & 15;
  type = (run: number): number => (this.kind[run] ?? 0) >> 4;
  hasBody = (run: number): boolean => withBody(this.pageClass(run));

  add(count: number, chunk: number, slot: number, source: number, kind: number): void {
    if (this.length === this.first.length) this.grow();
    this.first[this.length] = this.covered;
    this.chunk[this.length] = chunk;
    this.slot[this.length] = slot;
    this.source[this.length] = source;
    this.kind[this.length] = kind;
    this.length++;
    this.covered += count;
  }

  private grow(): void {
    const longer = <T extends Uint32Array | Uint16Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    const size = 2 * this.length;
    this.first = longer(this.first, new Uint32Array(size));
    this.chunk = longer(this.chunk, new Uint32Array(size));
    this.slot = longer(this.slot, new Uint16Array(size));
    this.source = longer(this.source, new Uint16Array(size));
    this.kind = longer(this.kind, new Uint8Array(size));
  }

  /** The runs that lead to this chunk of this file. */
  *ofChunk(source: number, chunk: number): Generator<number> {
    const place = (run: number) => joined(this.chunk[run] ?? 0, this.source[run] ?? 0);
    this.order ??= Uint32Array.from(
      Array.from({ length: this.length }, (_, run) => run).filter(this.hasBody),
    ).sort((a, b) => place(a) - place(b) || a - b);
    const wanted = joined(chunk, source);
    let low = 0;
    for (let high = this.order.length; low < high;) {
      const middle = (low + high) >>> 1;
      if (place(this.order[middle] ?? 0) < wanted) low = middle + 1;
      else high = middle;
    }
    for (let i = low; i < this.order.length; i++) {
      const run = this.order[i] ?? 0;
      if (place(run) !== wanted) return;
      yield run;
    }
  }
}

/** A file that an increment names. */
export interface NamedFile {
  readonly imageId: string;
  readonly root: string;
  readonly sequence: number;
  readonly name: string;
}

/** The table of ancestors, or a sentence about what is wrong with it. */
export function parseAncestors(bytes: Buffer, newer: boolean): NamedFile[] | string {
  if (bytes.length % ANCESTOR_SIZE !== 0 || bytes.length > ANCESTOR_SIZE * MAX_ANCESTORS)
    return 'it has an impossible size';
  const files: NamedFile[] = [];
  for (let at = 0; at < bytes.length; at += ANCESTOR_SIZE) {
    const end = at + ANCESTOR_SIZE;
    const nameSize = numberAt(bytes, ANCESTOR.nameSize, at);
    const nameAt = at + ANCESTOR.name[0];
    const name = nameSize <= ANCESTOR.name[1] ? textAt(bytes, nameAt, nameSize) : null;
    if (
      name === null ||
      name === '' ||
      name === '.' ||
      name === '..' ||
      name.includes('/') ||
      name.includes('\0')
    )
      return `entry ${files.length} has no file's name`;
    if (!isZero(bytes, nameAt + nameSize, end) || (!newer && numberAt(bytes, ANCESTOR.reserved, at) !== 0))
      return `entry ${files.length} has bytes set that must be zero`;
    const [imageId, root] = [hexAt(bytes, ANCESTOR.imageId, at), hexAt(bytes, ANCESTOR.root, at)];
    files.push({ imageId, root, sequence: numberAt(bytes, ANCESTOR.sequence, at), name });
  }
  return files;
}

/** What a map must keep to: sizes from the footer, and how many files its runs may name. */
export interface MapLimits {
  readonly nrRuns: number;
  readonly nrPfns: number;
  readonly nrChunks: number;
  readonly sources: number;
  readonly sparse: boolean;
  readonly newer: boolean;
}

/** The page map, or a sentence about what is wrong with it. Allocates for what it decodes, never for what is claimed. */
export function parsePageMap(bytes: Buffer, limits: MapLimits): MapRuns | string {
  const { nrRuns, nrPfns } = limits;
  const runs = new MapRuns();
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < MAP_BLOCK_SIZE) return 'a block ends early';
    const word = numberAt(bytes, MAP_BLOCK.storedSize, at);
    const raw = numberAt(bytes, MAP_BLOCK.rawSize, at);
    const isStored = word >= STORED_FLAG;
    const size = isStored ? word - STORED_FLAG : word;
    at += MAP_BLOCK_SIZE;
    const wanted = Math.min(MAP_BLOCK_RUNS, nrRuns - runs.length) * MAP_RUN_SIZE;
    if (raw !== wanted || raw === 0 || size > bytes.length - at || (isStored ? size !== raw : size >= raw))
      return 'a block has an impossible size';
    let block: Buffer;
    try {
      const stored = bytes.subarray(at, at + size);
      block = isStored ? stored : lz4Decompress(stored, raw);
    } catch {
      return 'a block does not decode';
    }
    const wrong = addRuns(runs, block, limits);
    if (wrong !== null) return wrong;
    at += size;
  }
  return runs.length === nrRuns && runs.covered === nrPfns ? runs : 'it does not cover every page once';
}

function addRuns(runs: MapRuns, block: Buffer, limits: MapLimits): string | null {
  for (let at = 0; at < block.length; at += MAP_RUN_SIZE) {
    const get = (field: Field) => numberAt(block, field, at);
    const [count, pageClass, type] = [get(MAP_RUN.count), get(MAP_RUN.pageClass), get(MAP_RUN.type)];
    const [source, chunk, slot] = [get(MAP_RUN.source), get(MAP_RUN.chunk), get(MAP_RUN.slot)];
    const where = `pfn ${runs.covered}`;
    if (count < 1 || count > limits.nrPfns - runs.covered) return `the run at ${where} is too long`;
    const absent = pageClass === 0;
    if (absent ? !limits.sparse || type !== 0 || source !== 0 : !classFits(pageClass, type))
      return `${where} has an impossible class`;
    if (source >= limits.sources) return `${where} is in a file that is not named`;
    if (get(MAP_RUN.reserved) !== 0 && !limits.newer) return `${where} has reserved bytes set`;
    if (!withBody(pageClass)) {
      if (chunk !== 0 || slot !== 0) return `${where} has no body but a chunk`;
    } else if (source === 0 && chunk >= limits.nrChunks) return `${where} is in a chunk that is not there`;
    runs.add(count, chunk, slot, source, pageClass | (type << 4));
  }
  return null;
}

/** The most that a region may be by what the footer counts: a file with holes is as long as it says it is. */
export function mostRegionBytes(footer: Buffer, name: Region): number {
  const [chunks, runs] = [numberAt(footer, FOOTER.chunkCount), numberAt(footer, FOOTER.pageMapRuns)];
  if (name === 'manifest') return MAX_MANIFEST_BYTES;
  if (name === 'ancestors') return MAX_ANCESTORS * ANCESTOR_SIZE;
  if (name === 'chunkTable') return chunks * CHUNK_ENTRY_SIZE;
  if (name === 'chunkDigests') return chunks * CHUNK_DIGEST_SIZE;
  if (name === 'pageHashes') return chunks * MAX_CHUNK_BODIES * PAGE_HASH_SIZE;
  return runs * MAP_RUN_SIZE + Math.ceil(runs / MAP_BLOCK_RUNS) * MAP_BLOCK_SIZE;
}

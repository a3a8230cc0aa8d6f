/**
 * Parses every structure of an image from its bytes alone, and says what is wrong instead of throwing: for verify and
 * inspect. Shares nothing with writer and reader but the constants of format.ts.
 */
import { lz4Decompress, lz4DecompressInto } from '../codec/lz4.js';
import { hasBody, tableLevel } from '../pfn/page_type.js';
import { hash128 } from '../pfn/page_scan.js';
import {
  BLOCK_PAGES,
  CHUNK_ENTRY,
  CHUNK_ENTRY_SIZE,
  CHUNK_HEADER,
  CHUNK_HEADER_SIZE,
  CHUNK_KINDS,
  CHUNK_MAGIC,
  CHUNK_RUN,
  CHUNK_RUN_SIZE,
  CLASS_NAMES,
  MAP_BLOCK,
  MAP_BLOCK_RUNS,
  MAP_BLOCK_SIZE,
  MAP_RUN,
  MAP_RUN_SIZE,
  MAX_CHUNK_BODIES,
  MAX_CHUNK_PAGES,
  PAGE_SIZE,
  STORED_FLAG,
  isZero,
  wholePages,
  type Field,
} from './format.js';

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
  const name = CLASS_NAMES[pageClass];
  if (name === 'data' || name === 'zero') return hasBody(type) && tableLevel(type) === 0;
  if (name === 'table') return tableLevel(type) > 0;
  if (name === 'sameAsParent') return hasBody(type);
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
  readonly bodies: number;
  readonly hash: string;
}

export function parseChunkTable(bytes: Buffer): ChunkEntry[] {
  return Array.from({ length: bytes.length / CHUNK_ENTRY_SIZE }, (_, i) => {
    const at = i * CHUNK_ENTRY_SIZE;
    return {
      offset: numberAt(bytes, CHUNK_ENTRY.offset, at),
      span: numberAt(bytes, CHUNK_ENTRY.span, at),
      pages: numberAt(bytes, CHUNK_ENTRY.pages, at),
      bodies: numberAt(bytes, CHUNK_ENTRY.bodies, at),
      hash: hexAt(bytes, CHUNK_ENTRY.hash, at),
    };
  });
}

export interface ChunkHead {
  readonly kind: string;
  readonly imageId: string;
  readonly chunk: number;
  readonly span: number;
  readonly pages: number;
  readonly bodies: number;
  readonly runs: number;
  readonly blocks: number;
  readonly payloadSize: number;
}

/** The 64 bytes at the start of a chunk, or null if they are not such a header. */
export function parseChunkHead(bytes: Buffer): ChunkHead | null {
  if (bytes.length < CHUNK_HEADER_SIZE || hexAt(bytes, CHUNK_HEADER.magic) !== CHUNK_MAGIC) return null;
  const get = (name: keyof typeof CHUNK_HEADER) => numberAt(bytes, CHUNK_HEADER[name]);
  const head = {
    kind: CHUNK_KINDS[get('kind')] ?? `kind ${get('kind')}`,
    imageId: hexAt(bytes, CHUNK_HEADER.imageId),
    chunk: get('chunk'),
    span: get('span'),
    pages: get('pages'),
    bodies: get('bodies'),
    runs: get('runs'),
    blocks: get('blocks'),
    payloadSize: get('payloadSize'),
  };
  const [reserved] = CHUNK_HEADER.reserved;
  const fixed = get('flags') === 0 && get('headerSize') === CHUNK_HEADER_SIZE;
  return fixed && isZero(bytes, reserved, CHUNK_HEADER_SIZE) && head.span >= PAGE_SIZE ? head : null;
}

/** Consecutive pfns of one class and type, at consecutive slots from `slot`. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
  readonly pageClass: number;
  readonly type: number;
  readonly slot: number;
}

export interface ParsedChunk {
  readonly head: ChunkHead;
  readonly runs: readonly PageRun[];
  readonly blocksDecoded: number;
}

const withBody = (pageClass: number): boolean =>
  CLASS_NAMES[pageClass] === 'data' || CLASS_NAMES[pageClass] === 'table';

function checkCounts(head: ChunkHead, size: number): string | null {
  const { pages, bodies, runs, blocks, payloadSize, span } = head;
  if (span !== size) return `its header says ${span} bytes`;
  if (pages < 1 || pages > MAX_CHUNK_PAGES || bodies > MAX_CHUNK_BODIES || bodies > pages)
    return `it counts ${pages} pages and ${bodies} bodies`;
  if (runs < 1 || runs > pages || blocks !== Math.ceil(bodies / BLOCK_PAGES))
    return `it counts ${runs} runs and ${blocks} blocks`;
  const used = CHUNK_HEADER_SIZE + payloadSize + 4 * blocks + CHUNK_RUN_SIZE * runs;
  return wholePages(used) === size ? null : 'its lengths do not add up';
}

function readRuns(bytes: Buffer, head: ChunkHead, at: number): PageRun[] | string {
  const runs: PageRun[] = [];
  let slot = 0;
  let bodies = 0;
  for (let i = 0; i < head.runs; i++, at += CHUNK_RUN_SIZE) {
    const word = bytes.readBigUInt64LE(at + CHUNK_RUN.desc[0]);
    const count = numberAt(bytes, CHUNK_RUN.count, at);
    const first = Number(word & 0xf_ffff_ffff_ffffn);
    const pageClass = Number((word >> 56n) & 15n);
    const type = Number(word >> 60n);
    if (((word >> 52n) & 15n) !== 0n || count < 1 || !classFits(pageClass, type))
      return `run ${i} is not possible`;
    runs.push({ first, count, pageClass, type, slot });
    slot += count;
    if (withBody(pageClass)) bodies += count;
  }
  return slot === head.pages && bodies === head.bodies ? runs : 'its runs do not add up';
}

/** Nobody looks at what a block holds, only that it decodes. */
const decoded = Buffer.allocUnsafe(BLOCK_PAGES * PAGE_SIZE);

/** Decodes every block. Returns how many, or what is wrong. */
function readBlocks(bytes: Buffer, head: ChunkHead, tableAt: number): number | string {
  let at = CHUNK_HEADER_SIZE;
  let compressed = false;
  for (let block = 0; block < head.blocks; block++) {
    const word = bytes.readUInt32LE(tableAt + 4 * block);
    const raw = PAGE_SIZE * Math.min(BLOCK_PAGES, head.bodies - block * BLOCK_PAGES);
    const isStored = word >= STORED_FLAG;
    const size = isStored ? word - STORED_FLAG : word;
    if (isStored ? size !== raw : size < 1 || size >= raw || at + size > tableAt)
      return `block ${block} has an impossible length`;
    if (!isStored && !lz4DecompressInto(bytes.subarray(at, at + size), decoded.subarray(0, raw)))
      return `block ${block} does not decode`;
    compressed ||= !isStored;
    at += size;
  }
  if (at !== tableAt) return 'its block lengths do not add up';
  const kind = head.blocks === 0 ? 'zero' : compressed ? 'lz4' : 'stored';
  return kind === head.kind ? head.blocks : `it is marked ${head.kind} but is ${kind}`;
}

/** A whole chunk, every block decoded; or a sentence about what is wrong with it. */
export function parseChunk(bytes: Buffer): ParsedChunk | string {
  const head = parseChunkHead(bytes);
  if (!head) return 'it does not begin with a chunk header';
  const wrong = checkCounts(head, bytes.length);
  if (wrong !== null) return wrong;
  const tableAt = CHUNK_HEADER_SIZE + head.payloadSize;
  const runsAt = tableAt + 4 * head.blocks;
  const runs = readRuns(bytes, head, runsAt);
  if (typeof runs === 'string') return runs;
  if (!isZero(bytes, runsAt + CHUNK_RUN_SIZE * head.runs, bytes.length)) return 'its padding is not zero';
  const blocksDecoded = readBlocks(bytes, head, tableAt);
  return typeof blocksDecoded === 'string' ? blocksDecoded : { head, runs, blocksDecoded };
}

/** The page map's runs in columns: 16 bytes a run. */
export class MapRuns {
  length = 0;
  /** Pages covered; one more run begins here. */
  covered = 0;
  first = new Uint32Array(1024);
  chunk = new Uint32Array(1024);
  slot = new Uint16Array(1024);
  kind = new Uint8Array(1024);
  private order: Uint32Array | undefined;

  count(run: number): number {
    return (run + 1 < this.length ? (this.first[run + 1] ?? 0) : this.covered) - (this.first[run] ?? 0);
  }
  pageClass = (run: number): number => (this.kind[run] ?? 0) & 15;
  type = (run: number): number => (this.kind[run] ?? 0) >> 4;

  add(count: number, chunk: number, slot: number, pageClass: number, type: number): void {
    if (this.length === this.first.length) this.grow();
    this.first[this.length] = this.covered;
    this.chunk[this.length] = chunk;
    this.slot[this.length] = slot;
    this.kind[this.length] = pageClass | (type << 4);
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
    this.kind = longer(this.kind, new Uint8Array(size));
  }

  /** The runs that lead to this chunk. */
  *ofChunk(chunk: number): Generator<number> {
    this.order ??= Uint32Array.from({ length: this.length }, (_, i) => i).sort(
      (a, b) => (this.chunk[a] ?? 0) - (this.chunk[b] ?? 0) || a - b,
    );
    let low = 0;
    for (let high = this.order.length; low < high;) {
      const middle = (low + high) >>> 1;
      if ((this.chunk[this.order[middle] ?? 0] ?? 0) < chunk) low = middle + 1;
      else high = middle;
    }
    for (let i = low; i < this.length; i++) {
      const run = this.order[i] ?? 0;
      if (this.chunk[run] !== chunk) return;
      yield run;
    }
  }
}

/** The page map, or a sentence about what is wrong with it. Allocates for what it decodes, never for what is claimed. */
export function parsePageMap(
  bytes: Buffer,
  nrRuns: number,
  nrPfns: number,
  nrChunks: number,
): MapRuns | string {
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
    const wrong = addRuns(runs, block, nrPfns, nrChunks);
    if (wrong !== null) return wrong;
    at += size;
  }
  return runs.length === nrRuns && runs.covered === nrPfns ? runs : 'it does not cover every page once';
}

function addRuns(runs: MapRuns, block: Buffer, nrPfns: number, nrChunks: number): string | null {
  for (let at = 0; at < block.length; at += MAP_RUN_SIZE) {
    const get = (field: Field) => numberAt(block, field, at);
    const count = get(MAP_RUN.count);
    if (count < 1 || count > nrPfns - runs.covered) return `the run at pfn ${runs.covered} is too long`;
    if (!classFits(get(MAP_RUN.pageClass), get(MAP_RUN.type)))
      return `pfn ${runs.covered} has an impossible class`;
    if (get(MAP_RUN.chunk) >= nrChunks) return `pfn ${runs.covered} is in a chunk that is not there`;
    runs.add(count, get(MAP_RUN.chunk), get(MAP_RUN.slot), get(MAP_RUN.pageClass), get(MAP_RUN.type));
  }
  return null;
}

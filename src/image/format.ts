/**
 * Image format 1 as constants: what docs/image-format.md specifies, field by field (a test compares the two).
 * All integers are little-endian. The writer, the reader and the independent verifier share this table and nothing else.
 */
import { pageBytes } from '../pfn/page_words.js';

export const FORMAT_MAJOR = 1;
export const FORMAT_MINOR = 0;

/** Pages compressed together. */
export const BLOCK_PAGES = 16;
/** Most pages with a body in one chunk, and most pages of any class. */
export const MAX_CHUNK_BODIES = 256;
export const MAX_CHUNK_PAGES = 1024;
/** Largest stored chunk: everything stored plus the largest tables, rounded up to whole pages. */
export const MAX_CHUNK_SPAN = 1_064_960;
export const MAX_PFNS = 2 ** 32;
export const MAX_MANIFEST_BYTES = 64 << 20;
/** Page map runs in every block of the map but the last. */
export const MAP_BLOCK_RUNS = 4096;
/** LZ4 cannot expand a byte to more than this. */
export const LZ4_MAX_RATIO = 255;
/** Set in a stored length when the block is not compressed. */
export const STORED_FLAG = 0x8000_0000;

export const HEADER_MAGIC = '89444d490d0a1a0a';
export const FOOTER_MAGIC = '444d49656e640d0a';
/** Of the layout before this one, which was never released. */
export const FORMER_HEADER_MAGIC = '894d4f5553450d0a';
export const CHUNK_MAGIC = '444d434b';

/** Flags of the header that a reader must understand: pages lie in other files too. */
export const FLAG_PARENT = 1n;
/** It may have chunks of deltas, which rest on pages of other files. */
export const FLAG_DELTAS = 2n;
/** must-understand flags this version knows. */
export const KNOWN_FLAGS = FLAG_PARENT | FLAG_DELTAS;
/** Flags of the header that a reader may pass over: what else the file has. */
export const FLAG_PAGE_HASHES = 1n;
export const FLAG_CHUNK_DIGESTS = 2n;

/** What the page map holds: every page, or those that are not as in the parent. */
export const MAP_KINDS = { 1: 'full', 2: 'changes' } as const;
export type MapKind = (typeof MAP_KINDS)[keyof typeof MAP_KINDS];
/** An increment whose number in its chain this divides has a full map. */
export const FULL_MAP_EVERY = 32;
/** Most files that a full map can name. */
export const MAX_ANCESTORS = 65_535;

export const CONSISTENCIES = { 1: 'suspend-point', 2: 'paused' } as const;
export const consistencies = Object.values(CONSISTENCIES);
export type Consistency = (typeof consistencies)[number];

/** Numbers a class can have; pfn/counts.ts has those there are. */
export const CLASS_SLOTS = 16;

/** Kinds of chunks: whole pages, or what changed of pages that older images hold. */
export const CHUNK_KIND_PAGES = 1;
export const CHUNK_KIND_DELTAS = 2;
/** How much older an image may be, by its number in the chain, for deltas to rest on it. */
export const MAX_DELTA_AGE = 32;
/** Codecs by number. */
export const CODECS = ['none', 'lz4'] as const;

/** One field of a fixed structure: its byte offset and size. */
export type Field = readonly [offset: number, size: number];
type Layout = Readonly<Record<string, Field>>;

/** The first page of the file. */
export const HEADER = {
  magic: [0, 8],
  major: [8, 2],
  minor: [10, 2],
  headerSize: [12, 4],
  pageSize: [16, 4],
  blockPages: [20, 2],
  maxChunkBodies: [22, 2],
  maxChunkPages: [24, 4],
  reserved0: [28, 4],
  mustUnderstand: [32, 8],
  mayIgnore: [40, 8],
  imageId: [48, 16],
  parentId: [64, 16],
  parentRoot: [80, 32],
  nrPfns: [112, 8],
  consistency: [120, 1],
  reserved1: [121, 7],
  chainId: [128, 16],
  sequence: [144, 8],
  cipher: [152, 2],
  keyWraps: [154, 2],
  reserved2: [156, 356],
  keyWrapArea: [512, 2048],
  reserved3: [2560, 1520],
  checksum: [4080, 16],
} as const satisfies Layout;

/** The start of every chunk. */
export const CHUNK_HEADER = {
  magic: [0, 4],
  kind: [4, 1],
  codec: [5, 1],
  headerSize: [6, 2],
  span: [8, 4],
  pages: [12, 2],
  bodies: [14, 2],
  runs: [16, 2],
  blocks: [18, 2],
  payloadSize: [20, 4],
  salt: [24, 16],
  tag: [40, 16],
  reserved: [56, 8],
} as const satisfies Layout;
export const CHUNK_HEADER_SIZE = 64;

/** One run of pages of a chunk: consecutive pfns of one class and type. */
export const CHUNK_RUN = { desc: [0, 8], count: [8, 4] } as const satisfies Layout;
export const CHUNK_RUN_SIZE = 12;

/** Of a chunk of deltas, by slot: the copy of the page that the delta rests on. */
export const DELTA_BASE = { chunk: [0, 4], slot: [4, 2], age: [6, 2] } as const satisfies Layout;
export const DELTA_BASE_SIZE = 8;

/** One chunk in the chunk table. */
export const CHUNK_ENTRY = {
  offset: [0, 8],
  span: [8, 4],
  pages: [12, 2],
  reserved: [14, 2],
  hash: [16, 16],
} as const satisfies Layout;
export const CHUNK_ENTRY_SIZE = 32;

/** Before each block of the page map. */
export const MAP_BLOCK = { storedSize: [0, 4], rawSize: [4, 4] } as const satisfies Layout;
export const MAP_BLOCK_SIZE = 8;

/** One run of the page map: consecutive pfns at consecutive slots of one chunk, or in none. */
export const MAP_RUN = {
  count: [0, 4],
  chunk: [4, 4],
  slot: [8, 2],
  source: [10, 2],
  pageClass: [12, 1],
  type: [13, 1],
  reserved: [14, 2],
} as const satisfies Layout;
export const MAP_RUN_SIZE = 16;

/** One file that an increment needs. */
export const ANCESTOR = {
  imageId: [0, 16],
  root: [16, 32],
  sequence: [48, 8],
  nameSize: [56, 2],
  reserved: [58, 6],
  name: [64, 256],
} as const satisfies Layout;
export const ANCESTOR_SIZE = 320;

/** Bytes of one page's hash and of one chunk's digest in their regions. */
export const PAGE_HASH_SIZE = 16;
export const CHUNK_DIGEST_SIZE = 32;

/** The last page of the file: it commits the image. */
export const FOOTER = {
  magic: [0, 8],
  major: [8, 2],
  minor: [10, 2],
  footerSize: [12, 4],
  imageId: [16, 16],
  fileSize: [32, 8],
  chunksOffset: [40, 8],
  chunksEnd: [48, 8],
  nrPfns: [56, 8],
  chunkCount: [64, 8],
  storedPages: [72, 8],
  pageMapRuns: [80, 8],
  mapKind: [88, 1],
  reserved0: [89, 7],
  classCounts: [96, 128],
  contentRoot: [224, 32],
  manifestOffset: [256, 8],
  manifestSize: [264, 8],
  manifestHash: [272, 32],
  ancestorsOffset: [304, 8],
  ancestorsSize: [312, 8],
  ancestorsHash: [320, 32],
  chunkTableOffset: [352, 8],
  chunkTableSize: [360, 8],
  chunkTableHash: [368, 32],
  pageMapOffset: [400, 8],
  pageMapSize: [408, 8],
  pageMapHash: [416, 32],
  pageHashesOffset: [448, 8],
  pageHashesSize: [456, 8],
  pageHashesHash: [464, 32],
  chunkDigestsOffset: [496, 8],
  chunkDigestsSize: [504, 8],
  chunkDigestsHash: [512, 32],
  reserved1: [544, 3408],
  root: [3952, 32],
  signerKey: [3984, 32],
  signature: [4016, 64],
  checksum: [4080, 16],
} as const satisfies Layout;

/** What lies between the chunks and the footer, in this order. */
export const REGIONS = [
  'manifest',
  'ancestors',
  'chunkTable',
  'pageMap',
  'pageHashes',
  'chunkDigests',
] as const;
export type Region = (typeof REGIONS)[number];

/** `bytes` rounded up to whole pages. */
export function wholePages(bytes: number): number {
  return Math.ceil(bytes / pageBytes) * pageBytes;
}

const zeroes = Buffer.alloc(pageBytes);

/** Whether these bytes, at most a page of them, are all zero. */
export function isZero(bytes: Buffer, from = 0, to = bytes.length): boolean {
  return bytes.subarray(from, to).equals(zeroes.subarray(0, to - from));
}

/** The UTF-8 text in these bytes; null if they are none, which would be another text once it is written again. */
export function textAt(bytes: Buffer, at: number, size: number): string | null {
  const part = bytes.subarray(at, at + size);
  const text = part.toString('utf8');
  return Buffer.from(text).equals(part) ? text : null;
}

/** First bytes of a file that `xl save` wrote: not an image, and to be told so. */
export const XL_MAGIC = Buffer.from('Xen saved domain, xl format\n \0 \r', 'latin1');

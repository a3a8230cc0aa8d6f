/**
 * Image format 1 as constants: what docs/image-format.md specifies, field by field (a test compares the two).
 * All integers are little-endian. The writer, the reader and the independent verifier share this table and nothing else.
 */

export const FORMAT_MAJOR = 1;
export const FORMAT_MINOR = 0;

export const PAGE_SIZE = 4096;
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

export const HEADER_MAGIC = '894d4f5553450d0a';
export const FOOTER_MAGIC = '4d4f555345454e44';
export const CHUNK_MAGIC = '444d434b';

/** must-understand flags this version knows: none. */
export const KNOWN_FLAGS = 0n;

export const CONSISTENCIES = { 1: 'suspend-point', 2: 'paused' } as const;
export type Consistency = (typeof CONSISTENCIES)[keyof typeof CONSISTENCIES];

/** Page classes by number; 0 is "absent" and never stored. */
export const CLASS_NAMES = [
  'absent',
  'data',
  'zero',
  'table',
  'noFrame',
  'broken',
  'alloc',
  'sameAsParent',
] as const;
export type PageClass = Exclude<(typeof CLASS_NAMES)[number], 'absent'>;

/** Chunk kinds by number. Delta and same-as-parent are reserved: format 1.0 does not hold them. */
export const CHUNK_KINDS = ['zero', 'stored', 'lz4', 'delta', 'sameAsParent'] as const;

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
  cipher: [128, 2],
  keyWraps: [130, 2],
  reserved2: [132, 380],
  keyWrapArea: [512, 2048],
  reserved3: [2560, 1520],
  checksum: [4080, 16],
} as const satisfies Layout;

/** The start of every chunk. */
export const CHUNK_HEADER = {
  magic: [0, 4],
  kind: [4, 1],
  flags: [5, 1],
  headerSize: [6, 2],
  imageId: [8, 16],
  chunk: [24, 4],
  span: [28, 4],
  pages: [32, 2],
  bodies: [34, 2],
  runs: [36, 2],
  blocks: [38, 2],
  payloadSize: [40, 4],
  reserved: [44, 20],
} as const satisfies Layout;
export const CHUNK_HEADER_SIZE = 64;

/** One run of pages of a chunk: consecutive pfns of one class and type. */
export const CHUNK_RUN = { desc: [0, 8], count: [8, 4] } as const satisfies Layout;
export const CHUNK_RUN_SIZE = 12;

/** One chunk in the chunk table. */
export const CHUNK_ENTRY = {
  offset: [0, 8],
  span: [8, 4],
  pages: [12, 2],
  bodies: [14, 2],
  hash: [16, 16],
} as const satisfies Layout;
export const CHUNK_ENTRY_SIZE = 32;

/** Before each block of the page map. */
export const MAP_BLOCK = { storedSize: [0, 4], rawSize: [4, 4] } as const satisfies Layout;
export const MAP_BLOCK_SIZE = 8;

/** One run of the page map: consecutive pfns at consecutive slots of one chunk. */
export const MAP_RUN = {
  count: [0, 4],
  chunk: [4, 4],
  slot: [8, 2],
  pageClass: [10, 1],
  type: [11, 1],
} as const satisfies Layout;
export const MAP_RUN_SIZE = 12;

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
  manifestOffset: [56, 8],
  manifestSize: [64, 8],
  chunkTableOffset: [72, 8],
  chunkCount: [80, 8],
  pageMapOffset: [88, 8],
  pageMapSize: [96, 8],
  pageMapRuns: [104, 8],
  nrPfns: [112, 8],
  storedPages: [120, 8],
  storedBodies: [128, 8],
  classCounts: [136, 64],
  manifestHash: [200, 16],
  chunkTableHash: [216, 16],
  pageMapHash: [232, 16],
  reserved: [248, 3704],
  root: [3952, 32],
  signerKey: [3984, 32],
  signature: [4016, 64],
  checksum: [4080, 16],
} as const satisfies Layout;

/** `bytes` rounded up to whole pages. */
export function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}

const zeroes = Buffer.alloc(PAGE_SIZE);

/** Whether these bytes, at most a page of them, are all zero. */
export function isZero(bytes: Buffer, from = 0, to = bytes.length): boolean {
  return bytes.subarray(from, to).equals(zeroes.subarray(0, to - from));
}

/** First bytes of a file that `xl save` wrote: not an image, and to be told so. */
export const XL_MAGIC = Buffer.from('Xen saved domain, xl format\n \0 \r', 'latin1');

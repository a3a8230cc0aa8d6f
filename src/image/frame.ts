/** The first and the last page of an image as objects: what the writer lays down and the reader checks. */
import { createHash } from 'node:crypto';
import { DormouseError } from '../errors.js';
import { hash128 } from '../pfn/page_scan.js';
import { type PageClass, classNames, type PageCounts } from '../pfn/counts.js';
import {
  BLOCK_PAGES,
  CLASS_SLOTS,
  CONSISTENCIES,
  FLAG_CHUNK_DIGESTS,
  FLAG_PAGE_HASHES,
  FLAG_DELTAS,
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
  MAX_PFNS,
  REGIONS,
  isZero,
  type Consistency,
  type Field,
  type MapKind,
  type Region,
} from './format.js';
import { isSignedBy, type Signer } from './signature.js';
import { pageBytes } from '../pfn/page_words.js';

export interface ImageHeader {
  readonly major: number;
  readonly minor: number;
  /** 32 hex digits. */
  readonly imageId: string;
  readonly parent: { readonly imageId: string; readonly root: string } | null;
  /** Image id of the full image that the chain begins with: its own where it is that one. */
  readonly chainId: string;
  /** How many images of the chain came before. */
  readonly sequence: number;
  readonly nrPfns: number;
  readonly consistency: Consistency;
  readonly hasPageHashes: boolean;
  /** It may have chunks of deltas; then it has a parent and page hashes. */
  readonly hasDeltas: boolean;
  readonly hasChunkDigests: boolean;
}

export interface RegionPlace {
  /** In bytes of the file; a multiple of 4096. */
  readonly offset: number;
  /** Without padding. */
  readonly size: number;
  /** SHA-256 of the region with its padding, in hex. */
  readonly hash: string;
}

export interface ImageFooter {
  readonly minor: number;
  readonly imageId: string;
  readonly fileSize: number;
  readonly chunksEnd: number;
  readonly nrPfns: number;
  readonly chunkCount: number;
  readonly storedPages: number;
  readonly pageMapRuns: number;
  readonly mapKind: MapKind;
  /** As this file has them: pages that an ancestor holds count as sameAsParent. */
  readonly counts: PageCounts;
  /** 64 hex digits; null where it was not computed. */
  readonly contentRoot: string | null;
  readonly regions: Readonly<Record<Region, RegionPlace>>;
}

/** A footer as it is in the file. */
export interface SealedFooter extends ImageFooter {
  /** 64 hex digits. */
  readonly root: string;
  /** Its signature was checked; null too where the root was known beforehand. */
  readonly signer: Signer | null;
}

const classes = classNames.slice(1) as PageClass[];
const zeroId = '0'.repeat(32);
const noRoot = '0'.repeat(64);

/** XXH3-128 as the format stores it: a 128-bit little-endian number, in hex. */
export const storedHash = (bytes: Uint8Array): string =>
  Buffer.from(hash128(bytes), 'hex').reverse().toString('hex');

export const damaged = (message: string, offset?: number): DormouseError =>
  new DormouseError('IMAGE_DAMAGED', message, offset === undefined ? {} : { place: { offset } });

class FrameWriter {
  readonly page = Buffer.alloc(pageBytes);

  number([offset, size]: Field, value: number): void {
    if (size === 8) this.page.writeBigUInt64LE(BigInt(value), offset);
    else this.page.writeUIntLE(value, offset, size);
  }

  hex([offset, size]: Field, digits: string): void {
    if (this.page.write(digits, offset, size, 'hex') !== size)
      throw new DormouseError('INTERNAL', `${size} bytes of hex expected, not "${digits}"`);
  }

  sealed([offset, size]: Field): Buffer {
    this.hex([offset, size], storedHash(this.page.subarray(0, offset)));
    return this.page;
  }
}

class FrameReader {
  constructor(
    private readonly page: Buffer,
    private readonly what: string,
  ) {}

  number([offset, size]: Field): number {
    const value = size === 8 ? this.page.readBigUInt64LE(offset) : BigInt(this.page.readUIntLE(offset, size));
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(`${this.what}: an impossible number`);
    return Number(value);
  }

  flags = ([offset]: Field): bigint => this.page.readBigUInt64LE(offset);
  hex = ([offset, size]: Field): string => this.page.toString('hex', offset, offset + size);
  isZero = ([offset, size]: Field): boolean => isZero(this.page, offset, offset + size);

  checkSeal([offset, size]: Field): void {
    if (storedHash(this.page.subarray(0, offset)) !== this.hex([offset, size]))
      throw damaged(`the ${this.what}'s checksum differs`);
  }
}

export function encodeHeader(header: Omit<ImageHeader, 'major' | 'minor'>): Buffer {
  const w = new FrameWriter();
  w.hex(HEADER.magic, HEADER_MAGIC);
  w.number(HEADER.major, FORMAT_MAJOR);
  w.number(HEADER.minor, FORMAT_MINOR);
  w.number(HEADER.headerSize, pageBytes);
  w.number(HEADER.pageSize, pageBytes);
  w.number(HEADER.blockPages, BLOCK_PAGES);
  w.number(HEADER.maxChunkBodies, MAX_CHUNK_BODIES);
  w.number(HEADER.maxChunkPages, MAX_CHUNK_PAGES);
  w.hex(HEADER.imageId, header.imageId);
  const mayIgnore =
    (header.hasPageHashes ? FLAG_PAGE_HASHES : 0n) | (header.hasChunkDigests ? FLAG_CHUNK_DIGESTS : 0n);
  const mustUnderstand = (header.parent ? FLAG_PARENT : 0n) | (header.hasDeltas ? FLAG_DELTAS : 0n);
  w.page.writeBigUInt64LE(mustUnderstand, HEADER.mustUnderstand[0]);
  w.page.writeBigUInt64LE(mayIgnore, HEADER.mayIgnore[0]);
  w.hex(HEADER.chainId, header.chainId);
  w.number(HEADER.sequence, header.sequence);
  if (header.parent) {
    w.hex(HEADER.parentId, header.parent.imageId);
    w.hex(HEADER.parentRoot, header.parent.root);
  }
  w.number(HEADER.nrPfns, header.nrPfns);
  w.number(HEADER.consistency, header.consistency === 'suspend-point' ? 1 : 2);
  return w.sealed(HEADER.checksum);
}

export const formerLayout =
  'the image has the layout from before format 1 was settled, which no release wrote; save the guest again';

/** Errors: IMAGE_DAMAGED; IMAGE_INCOMPATIBLE for another major version or a must-understand flag that is unknown. */
export function decodeHeader(page: Buffer): ImageHeader {
  const r = new FrameReader(page, 'header');
  if (page.length >= pageBytes && r.hex(HEADER.magic) === FORMER_HEADER_MAGIC)
    throw new DormouseError('IMAGE_INCOMPATIBLE', formerLayout);
  if (page.length < pageBytes || r.hex(HEADER.magic) !== HEADER_MAGIC)
    throw damaged('not a dormouse image, or its first page is damaged', 0);
  r.checkSeal(HEADER.checksum);
  const major = r.number(HEADER.major);
  const minor = r.number(HEADER.minor);
  if (major !== FORMAT_MAJOR)
    throw new DormouseError('IMAGE_INCOMPATIBLE', `format ${major}.${minor}; this version reads 1.x`);
  const unknown = r.flags(HEADER.mustUnderstand) & ~KNOWN_FLAGS;
  if (unknown !== 0n || !r.isZero(HEADER.cipher))
    throw new DormouseError(
      'IMAGE_INCOMPATIBLE',
      `it needs features 0x${unknown.toString(16)} of a newer dormouse`,
    );
  checkGeometry(r);
  checkReserved(r, 'header', minor, [
    HEADER.reserved0,
    HEADER.reserved1,
    HEADER.keyWraps,
    HEADER.reserved2,
    HEADER.keyWrapArea,
    HEADER.reserved3,
  ]);
  const consistency = CONSISTENCIES[r.number(HEADER.consistency) as keyof typeof CONSISTENCIES] as
    Consistency | undefined;
  const nrPfns = r.number(HEADER.nrPfns);
  if (consistency === undefined || nrPfns < 1 || nrPfns > MAX_PFNS)
    throw damaged('header: impossible values', 0);
  const mayIgnore = r.flags(HEADER.mayIgnore);
  return {
    ...{ major, minor, imageId: r.hex(HEADER.imageId), nrPfns, consistency },
    ...decodeLineage(r),
    hasPageHashes: (mayIgnore & FLAG_PAGE_HASHES) !== 0n,
    hasDeltas: (r.flags(HEADER.mustUnderstand) & FLAG_DELTAS) !== 0n,
    hasChunkDigests: (mayIgnore & FLAG_CHUNK_DIGESTS) !== 0n,
  };
}

function decodeLineage(r: FrameReader): Pick<ImageHeader, 'parent' | 'chainId' | 'sequence'> {
  const parentId = r.hex(HEADER.parentId);
  const isFirst = parentId === zeroId;
  const [chainId, sequence] = [r.hex(HEADER.chainId), r.number(HEADER.sequence)];
  const agree =
    isFirst === ((r.flags(HEADER.mustUnderstand) & FLAG_PARENT) === 0n) &&
    isFirst === r.isZero(HEADER.parentRoot) &&
    isFirst === (sequence === 0) &&
    isFirst === (chainId === r.hex(HEADER.imageId));
  if (!agree) throw damaged('header: it contradicts itself on whether there is a parent', 0);
  const deltas = (r.flags(HEADER.mustUnderstand) & FLAG_DELTAS) !== 0n;
  if (deltas && (isFirst || (r.flags(HEADER.mayIgnore) & FLAG_PAGE_HASHES) === 0n))
    throw damaged('header: it has deltas, but no parent or no page hashes', 0);
  const parent = isFirst ? null : { imageId: parentId, root: r.hex(HEADER.parentRoot) };
  return { parent, chainId, sequence };
}

/** What this version does not know must be zero, unless a newer minor version may have put it there. */
function checkReserved(r: FrameReader, what: string, minor: number, fields: readonly Field[]): void {
  if (minor <= FORMAT_MINOR && !fields.every(r.isZero))
    throw damaged(`reserved bytes of the ${what} are not zero`);
}

function checkGeometry(r: FrameReader): void {
  const sizes =
    r.number(HEADER.headerSize) === pageBytes &&
    r.number(HEADER.pageSize) === pageBytes &&
    r.number(HEADER.blockPages) === BLOCK_PAGES &&
    r.number(HEADER.maxChunkBodies) === MAX_CHUNK_BODIES &&
    r.number(HEADER.maxChunkPages) === MAX_CHUNK_PAGES;
  if (!sizes) throw new DormouseError('IMAGE_INCOMPATIBLE', 'its pages, blocks or chunks have other sizes');
}

/** The footer without root and checksum; sealFooter() adds them. */
export function encodeFooter(footer: Omit<ImageFooter, 'minor'>): Buffer {
  const w = new FrameWriter();
  w.hex(FOOTER.magic, FOOTER_MAGIC);
  w.number(FOOTER.major, FORMAT_MAJOR);
  w.number(FOOTER.minor, FORMAT_MINOR);
  w.number(FOOTER.footerSize, pageBytes);
  w.number(FOOTER.chunksOffset, pageBytes);
  w.hex(FOOTER.imageId, footer.imageId);
  for (const name of numbers) w.number(FOOTER[name], footer[name]);
  w.number(FOOTER.mapKind, footer.mapKind === 'full' ? 1 : 2);
  classes.forEach((name, i) => w.number([FOOTER.classCounts[0] + 8 * (i + 1), 8], footer.counts[name]));
  w.hex(FOOTER.contentRoot, footer.contentRoot ?? noRoot);
  for (const name of REGIONS) {
    const { offset, size, hash } = footer.regions[name];
    w.number(FOOTER[`${name}Offset`], offset);
    w.number(FOOTER[`${name}Size`], size);
    w.hex(FOOTER[`${name}Hash`], hash);
  }
  return w.page;
}

/** What identifies the whole image: SHA-256 over header and footer up to the root, in hex. */
export function rootOf(headerPage: Buffer, footerPage: Buffer): string {
  return createHash('sha256').update(headerPage).update(footerPage.subarray(0, FOOTER.root[0])).digest('hex');
}

/** INTERNAL if the signer's signature is not over the root. */
export function sealFooter(page: Buffer, root: string, signer: Signer | null): Buffer {
  const w = new FrameWriter();
  page.copy(w.page);
  w.hex(FOOTER.root, root);
  if (signer && !isSignedBy(Buffer.from(root, 'hex'), signer))
    throw new DormouseError('INTERNAL', 'the signature is not one over the root');
  signer?.key.copy(w.page, FOOTER.signerKey[0]);
  signer?.signature.copy(w.page, FOOTER.signature[0]);
  return w.sealed(FOOTER.checksum);
}

/** Null for an image that nobody signed, and for the known root. IMAGE_DAMAGED for a signature that is not over the root. */
function signerOf(r: FrameReader, root: string, knownRoot: string | null): Signer | null {
  if (root === knownRoot || (r.isZero(FOOTER.signerKey) && r.isZero(FOOTER.signature))) return null;
  const signer = {
    key: Buffer.from(r.hex(FOOTER.signerKey), 'hex'),
    signature: Buffer.from(r.hex(FOOTER.signature), 'hex'),
  };
  if (isSignedBy(Buffer.from(root, 'hex'), signer)) return signer;
  throw damaged('its signature is not one over its root');
}

const numbers = ['fileSize', 'chunksEnd', 'nrPfns', 'chunkCount', 'storedPages', 'pageMapRuns'] as const;

/**
 * IMAGE_DAMAGED if the page is not a whole footer. Its numbers are checked against each other by the caller. The signature over
 * `knownRoot`, a root that something checked vouches for, is not checked.
 */
export function decodeFooter(page: Buffer, knownRoot: string | null = null): SealedFooter {
  const r = new FrameReader(page, 'footer');
  if (page.length < pageBytes || r.hex(FOOTER.magic) !== FOOTER_MAGIC)
    throw damaged('it has no footer: it was cut short or never completed');
  r.checkSeal(FOOTER.checksum);
  const [firstCount] = FOOTER.classCounts;
  const minor = r.number(FOOTER.minor);
  const mapKind = MAP_KINDS[r.number(FOOTER.mapKind) as keyof typeof MAP_KINDS] as MapKind | undefined;
  const fixed =
    r.number(FOOTER.major) === FORMAT_MAJOR &&
    r.number(FOOTER.footerSize) === pageBytes &&
    r.number(FOOTER.chunksOffset) === pageBytes &&
    r.isZero([firstCount, 8]);
  if (!fixed || mapKind === undefined) throw damaged('footer: impossible values');
  const freeCounts: Field = [firstCount + 8 * classNames.length, 8 * (CLASS_SLOTS - classNames.length)];
  checkReserved(r, 'footer', minor, [FOOTER.reserved0, freeCounts, FOOTER.reserved1]);
  const of = Object.fromEntries(numbers.map((name) => [name, r.number(FOOTER[name])]));
  const counts = classes.map((name, i) => [name, r.number([firstCount + 8 * (i + 1), 8])]);
  const regions = REGIONS.map((name) => {
    const [offset, size] = [r.number(FOOTER[`${name}Offset`]), r.number(FOOTER[`${name}Size`])];
    return [name, { offset, size, hash: r.hex(FOOTER[`${name}Hash`]) }];
  });
  const root = r.hex(FOOTER.root);
  return {
    ...(of as Pick<ImageFooter, (typeof numbers)[number]>),
    ...{ minor, mapKind, root, imageId: r.hex(FOOTER.imageId) },
    counts: Object.fromEntries(counts) as PageCounts,
    regions: Object.fromEntries(regions) as ImageFooter['regions'],
    contentRoot: r.isZero(FOOTER.contentRoot) ? null : r.hex(FOOTER.contentRoot),
    signer: signerOf(r, root, knownRoot),
  };
}

/** Counts by class number (index 0, absent, is left out) as named counts. */
export function namedCounts(byClass: readonly number[]): PageCounts {
  return Object.fromEntries(classes.map((name, i) => [name, byClass[i + 1] ?? 0])) as unknown as PageCounts;
}

export function sameCounts(a: Readonly<PageCounts>, b: Readonly<PageCounts>): boolean {
  return classes.every((name) => a[name] === b[name]);
}

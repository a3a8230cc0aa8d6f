/** Changes a whole image and makes every checksum right again: what an attacker would send. */
import { createHash } from 'node:crypto';
import {
  CHUNK_DIGEST_SIZE,
  CHUNK_ENTRY,
  CHUNK_ENTRY_SIZE,
  FOOTER,
  HEADER,
  REGIONS,
  wholePages,
  type Field,
  type Region,
} from '../../src/image/format.js';
import { hash128 } from '../../src/pfn/page_scan.js';
import { pageBytes } from '../../src/pfn/page_words.js';

export interface Parts {
  header: Buffer;
  /** By chunk number, each a whole span. */
  chunks: Buffer[];
  /** Without padding. Replace to change their size. */
  regions: Record<Region, Buffer>;
  footer: Buffer;
}

const get = (from: Buffer, [offset]: Field): number => Number(from.readBigUInt64LE(offset));
export function put(into: Buffer, [offset, size]: Field, value: number | bigint, base = 0): void {
  if (size === 8) into.writeBigUInt64LE(BigInt(value), base + offset);
  else into.writeUIntLE(Number(value), base + offset, size);
}

const checksum = (bytes: Buffer): Buffer => Buffer.from(hash128(bytes), 'hex').reverse();

function padded(bytes: Buffer): Buffer {
  const span = Buffer.alloc(wholePages(bytes.length));
  bytes.copy(span);
  return span;
}

export function takeApart(image: Buffer): Parts {
  const footer = Buffer.from(image.subarray(-pageBytes));
  const slice = (name: Region) => {
    const at = get(footer, FOOTER[`${name}Offset`]);
    return Buffer.from(image.subarray(at, at + get(footer, FOOTER[`${name}Size`])));
  };
  const regions = Object.fromEntries(REGIONS.map((name) => [name, slice(name)])) as Parts['regions'];
  const { chunkTable } = regions;
  const chunks = Array.from({ length: chunkTable.length / CHUNK_ENTRY_SIZE }, (_, i) => {
    const at = Number(chunkTable.readBigUInt64LE(i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.offset[0]));
    const span = chunkTable.readUInt32LE(i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.span[0]);
    return Buffer.from(image.subarray(at, at + span));
  });
  return { header: Buffer.from(image.subarray(0, pageBytes)), chunks, regions, footer };
}

/** Where the chunks are, and their checksums and digests. Returns where they end. */
function fillTable({ chunks, regions }: Parts): number {
  let at = pageBytes;
  chunks.forEach((chunk, i) => {
    put(regions.chunkTable, CHUNK_ENTRY.offset, at, i * CHUNK_ENTRY_SIZE);
    checksum(chunk).copy(regions.chunkTable, i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.hash[0]);
    const digest = createHash('sha256').update(chunk).digest();
    if (regions.chunkDigests.length > 0) digest.copy(regions.chunkDigests, i * CHUNK_DIGEST_SIZE);
    at += chunk.length;
  });
  return at;
}

/** `late` changes the footer after sizes, offsets and hashes were filled in, and before it is sealed. */
export function putTogether(parts: Parts, late: (footer: Buffer) => void = () => undefined): Buffer {
  const { header, chunks, regions, footer } = parts;
  checksum(header.subarray(0, HEADER.checksum[0])).copy(header, HEADER.checksum[0]);
  let at = fillTable(parts);
  put(footer, FOOTER.chunksEnd, at);
  const spans = REGIONS.map((name) => {
    const span = padded(regions[name]);
    put(footer, FOOTER[`${name}Offset`], at);
    put(footer, FOOTER[`${name}Size`], regions[name].length);
    createHash('sha256').update(span).digest().copy(footer, FOOTER[`${name}Hash`][0]);
    at += span.length;
    return span;
  });
  put(footer, FOOTER.fileSize, at + pageBytes);
  late(footer);
  const root = createHash('sha256').update(header).update(footer.subarray(0, FOOTER.root[0]));
  root.digest().copy(footer, FOOTER.root[0]);
  checksum(footer.subarray(0, FOOTER.checksum[0])).copy(footer, FOOTER.checksum[0]);
  return Buffer.concat([header, ...chunks, ...spans, footer]);
}

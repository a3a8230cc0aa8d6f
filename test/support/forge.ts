/** Changes a whole image and makes every checksum right again: what an attacker would send. */
import { createHash } from 'node:crypto';
import {
  CHUNK_ENTRY,
  CHUNK_ENTRY_SIZE,
  FOOTER,
  HEADER,
  PAGE_SIZE,
  wholePages,
  type Field,
} from '../../src/image/format.js';
import { hash128 } from '../../src/pfn/page_scan.js';

export interface Parts {
  header: Buffer;
  /** By chunk number, each a whole span. */
  chunks: Buffer[];
  /** Without padding. Replace to change their size. */
  manifest: Buffer;
  table: Buffer;
  map: Buffer;
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
  const footer = Buffer.from(image.subarray(-PAGE_SIZE));
  const slice = (offset: Field, size: number) => {
    const at = get(footer, offset);
    return Buffer.from(image.subarray(at, at + size));
  };
  const table = slice(FOOTER.chunkTableOffset, get(footer, FOOTER.chunkCount) * CHUNK_ENTRY_SIZE);
  const chunks = Array.from({ length: table.length / CHUNK_ENTRY_SIZE }, (_, i) => {
    const at = Number(table.readBigUInt64LE(i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.offset[0]));
    const span = table.readUInt32LE(i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.span[0]);
    return Buffer.from(image.subarray(at, at + span));
  });
  return {
    header: Buffer.from(image.subarray(0, PAGE_SIZE)),
    chunks,
    manifest: slice(FOOTER.manifestOffset, get(footer, FOOTER.manifestSize)),
    table,
    map: slice(FOOTER.pageMapOffset, get(footer, FOOTER.pageMapSize)),
    footer,
  };
}

/** `late` changes the footer after sizes, offsets and hashes were filled in, and before it is sealed. */
export function putTogether(parts: Parts, late: (footer: Buffer) => void = () => undefined): Buffer {
  const { header, chunks, manifest, table, map, footer } = parts;
  checksum(header.subarray(0, HEADER.checksum[0])).copy(header, HEADER.checksum[0]);
  let at = PAGE_SIZE;
  chunks.forEach((chunk, i) => {
    put(table, CHUNK_ENTRY.offset, at, i * CHUNK_ENTRY_SIZE);
    checksum(chunk).copy(table, i * CHUNK_ENTRY_SIZE + CHUNK_ENTRY.hash[0]);
    at += chunk.length;
  });
  const spans = [manifest, table, map].map(padded) as [Buffer, Buffer, Buffer];
  const [manifestSpan, tableSpan, mapSpan] = spans;
  put(footer, FOOTER.chunksEnd, at);
  put(footer, FOOTER.manifestOffset, at);
  put(footer, FOOTER.manifestSize, manifest.length);
  put(footer, FOOTER.chunkTableOffset, at + manifestSpan.length);
  put(footer, FOOTER.pageMapOffset, at + manifestSpan.length + tableSpan.length);
  put(footer, FOOTER.pageMapSize, map.length);
  put(footer, FOOTER.fileSize, at + manifestSpan.length + tableSpan.length + mapSpan.length + PAGE_SIZE);
  checksum(manifestSpan).copy(footer, FOOTER.manifestHash[0]);
  checksum(tableSpan).copy(footer, FOOTER.chunkTableHash[0]);
  checksum(mapSpan).copy(footer, FOOTER.pageMapHash[0]);
  late(footer);
  const root = createHash('sha256').update(header);
  for (const span of spans) root.update(span);
  root.update(footer.subarray(0, FOOTER.root[0])).digest().copy(footer, FOOTER.root[0]);
  checksum(footer.subarray(0, FOOTER.checksum[0])).copy(footer, FOOTER.checksum[0]);
  return Buffer.concat([header, ...chunks, ...spans, footer]);
}

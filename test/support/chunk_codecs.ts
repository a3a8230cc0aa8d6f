/** The codec byte of each chunk of an image, and how many of its blocks are compressed, read from the file itself. */
import { readFileSync } from 'node:fs';
import { CHUNK_ENTRY_SIZE } from '../../src/image/format.js';

export interface ChunkCodec {
  readonly codec: number;
  readonly blocks: number;
  readonly compressed: number;
}

export function chunkCodecs(path: string): ChunkCodec[] {
  const file = readFileSync(path);
  const footer = file.length - 4096;
  const [table, size] = [352, 360].map((at) => Number(file.readBigUInt64LE(footer + at))) as [number, number];
  return Array.from({ length: size / CHUNK_ENTRY_SIZE }, (_, i) => {
    const at = Number(file.readBigUInt64LE(table + i * CHUNK_ENTRY_SIZE));
    const blocks = file.readUInt16LE(at + 18);
    const lengths = at + 64 + file.readUInt32LE(at + 20);
    const stored = Array.from({ length: blocks }, (_, b) => file.readUInt32LE(lengths + 4 * b) >>> 31);
    return { codec: file.readUInt8(at + 5), blocks, compressed: stored.filter((flag) => flag === 0).length };
  });
}

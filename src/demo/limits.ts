/** What this machine allows, measured in the same run as the figures that stand beside it. */
import { availableParallelism } from 'node:os';
import { addon, native } from '../addon.js';
import { ImageReader } from '../image/reader.js';
import { pageBytes } from '../pfn/page_words.js';

/** Decimal gigabytes a second. */
export interface Limits {
  readonly memcpyGbps: number;
  /** LZ4 of the guest's own memory, all cores together. */
  readonly compressGbps: number;
  readonly decompressGbps: number;
  readonly cores: number;
}

interface NativeLimits {
  memory(bytes: number): { readonly memcpyGbps: number };
  lz4(
    data: Uint8Array,
    threads: number,
    acceleration: number,
  ): { readonly compressGbps: number; readonly decompressGbps: number };
}

const blockPages = 16;
const sampleBlocks = 1024;

/** 64 MiB of the image's pages, in blocks of 64 KiB spread evenly over its memory; zero pages as they come. */
async function sampleMemory(path: string): Promise<Buffer> {
  const reader = await ImageReader.open(path, { lanes: 1, mapOnly: true });
  try {
    const blocks = Math.floor(reader.nrPfns / blockPages);
    const wanted = Math.min(sampleBlocks, blocks);
    const pieces: Buffer[] = [];
    for (let i = 0; i < wanted; i++) {
      const first = Math.floor((i * blocks) / wanted) * blockPages;
      pieces.push(Buffer.from(reader.readPages(Array.from({ length: blockPages }, (_, at) => first + at))));
    }
    return Buffer.concat(pieces);
  } finally {
    reader.close();
  }
}

/** Measures for a second or two. `path` is an image of the guest whose figures stand beside. */
export async function measureLimits(path: string): Promise<Limits> {
  const sample = await sampleMemory(path);
  const limits = addon('limits') as NativeLimits;
  const cores = availableParallelism();
  return native(() => {
    const { memcpyGbps } = limits.memory(sampleBlocks * blockPages * pageBytes);
    const { compressGbps, decompressGbps } = limits.lz4(sample, cores, 1);
    return { memcpyGbps, compressGbps, decompressGbps, cores };
  });
}

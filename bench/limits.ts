/** What this machine can do at all, measured in the same run as the figures that are held against it. */
import { addon, native } from '../src/addon.js';
import { isZeroPage } from '../src/pfn/page_scan.js';
import { simdLevel } from '../src/pfn/simd.js';
import { Buffer } from 'node:buffer';
import { pageBytes } from '../src/pfn/page_words.js';

interface MemoryLimits {
  readonly memcpyGbps: number;
  readonly scatteredCopyUs: number;
  readonly zeroScanGbps: number;
  readonly hashGbps: number;
}

/** GB/s of plain bytes; storedShare is stored bytes by plain bytes. */
export interface CodecLimits {
  readonly compressGbps: number;
  readonly decompressGbps: number;
  readonly storedShare: number;
}

interface NativeLimits {
  memory(bytes: number): MemoryLimits;
  firstTouchUs(bytes: number, huge: boolean): number;
  sharedFirstTouchGbps(bytes: number, threads: number): number;
  canonicaliseGbps(nrPfns: number, window: number, pfnsInOrder: boolean): number;
  lz4(data: Uint8Array, threads: number, acceleration: number): CodecLimits;
  directWriteGbps(dir: string, bytes: number, inFlight: number): number;
}
const limits = (): NativeLimits => addon('limits') as NativeLimits;

const GiB = 2 ** 30;

/** GB/s is 10^9 bytes a second, best of several runs. */
export interface Limits extends MemoryLimits {
  readonly simd: string;
  /**
   * Level-1 tables of a 1 GiB domain, every entry present and valid. Frames are shuffled in windows of 16384 (64 MiB)
   * and the tables map their pfns in order; frames shuffled over everything; frames and pfns shuffled in windows.
   */
  readonly canonicaliseGbps: number;
  readonly canonicaliseRandomGbps: number;
  readonly canonicaliseScatteredGbps: number;
  /** Microseconds for each fresh 4 KiB page, in small and in huge pages. */
  readonly firstTouchUs: number;
  readonly firstTouchHugeUs: number;
  /** GB/s at which two threads touch fresh memory of the kind the embedded host's guests have. */
  readonly sharedFirstTouchGbps: number;
  /** 64 KiB blocks of the mixed memory as it is, with one and with two threads. */
  readonly lz4: readonly [CodecLimits, CodecLimits];
  /** The same without its zero pages, which an image does not compress. */
  readonly lz4NonZero: readonly [CodecLimits, CodecLimits];
  /** O_DIRECT, 4 MiB at a time, fdatasync included, with one and with two writes in flight. */
  readonly directWriteGbps: readonly [number, number];
}

/** The pages of `memory` that are not all zero, one after the other. */
export function withoutZeroPages(memory: Buffer): Buffer {
  const kept = Buffer.allocUnsafeSlow(memory.length);
  let length = 0;
  for (let at = 0; at + pageBytes <= memory.length; at += pageBytes) {
    const page = memory.subarray(at, at + pageBytes);
    if (isZeroPage(page)) continue;
    kept.set(page, length);
    length += pageBytes;
  }
  return kept.subarray(0, length);
}

/** LZ4 over 64 KiB blocks of `data` (not empty) on that many threads. */
export function measureLz4(data: Uint8Array, threads: number, acceleration = 1): CodecLimits {
  if (data.length === 0) throw new RangeError('nothing to compress');
  return native(() => limits().lz4(data, threads, acceleration));
}

/** GB/s at which two threads touch fresh memory of the kind the embedded host's guests have. */
export function measureSharedFirstTouch(): number {
  return limits().sharedFirstTouchGbps(GiB, 2);
}

/** GB/s of incompressible O_DIRECT writes into a nameless file of `dir`. Throws OUTPUT_INVALID where it has none. */
export const measureDirectWrite = (dir: string, bytes: number, inFlight: number): number =>
  native(() => limits().directWriteGbps(dir, bytes, inFlight));

/** Takes some seconds, 2 GiB of memory and 1 GiB of `dir`'s disk, all given back. */
export function measureLimits(dir: string, mixed: Buffer): Limits {
  const nonZero = withoutZeroPages(mixed);
  const nrPfns = GiB / pageBytes;
  return {
    simd: simdLevel(),
    ...native(() => limits().memory(GiB)),
    canonicaliseGbps: limits().canonicaliseGbps(nrPfns, 16_384, true),
    canonicaliseRandomGbps: limits().canonicaliseGbps(nrPfns, nrPfns, true),
    canonicaliseScatteredGbps: limits().canonicaliseGbps(nrPfns, 16_384, false),
    firstTouchUs: limits().firstTouchUs(GiB / 4, false),
    firstTouchHugeUs: limits().firstTouchUs(GiB / 4, true),
    sharedFirstTouchGbps: measureSharedFirstTouch(),
    lz4: [measureLz4(mixed, 1), measureLz4(mixed, 2)],
    lz4NonZero: [measureLz4(nonZero, 1), measureLz4(nonZero, 2)],
    directWriteGbps: [measureDirectWrite(dir, GiB, 1), measureDirectWrite(dir, GiB, 2)],
  };
}

/** The addon's page kernels, and which instruction set they use. */
import { addon } from '../addon.js';

export const simdLevels = ['scalar', 'avx2', 'avx512'] as const;
export type SimdLevel = (typeof simdLevels)[number];

/** What the addon says of tables it translated; `fault` 0 means none. */
export interface NativeOutcome {
  readonly fault: number;
  readonly text: string;
  readonly page: number;
  readonly index: number;
  readonly entry: bigint;
  readonly present: number;
}

interface NativePfn {
  simdLevel(): SimdLevel;
  simdRuns(name: string): boolean;
  translate(
    simd: string,
    toPfns: boolean,
    p2m: BigUint64Array,
    m2p: BigUint64Array,
    level: number,
    src: Uint8Array,
    dst: Uint8Array,
  ): NativeOutcome;
  isZeroPage(simd: string, page: Uint8Array): boolean;
  hash128(simd: string, data: Uint8Array): string;
}

export const nativePfn = (): NativePfn => addon('pfn') as NativePfn;

/** The instruction set chosen for this processor. */
export const simdLevel = (): SimdLevel => nativePfn().simdLevel();

/** The instruction sets this processor runs, the scalar reference first. */
export const usableSimdLevels = (): SimdLevel[] => simdLevels.filter((name) => nativePfn().simdRuns(name));

/** The addon's name for a wanted level ('' lets it choose); RangeError where the processor does not run it. */
export function simdArgument(simd: SimdLevel | undefined): string {
  if (simd !== undefined && !nativePfn().simdRuns(simd)) throw new RangeError(`no ${simd} on this processor`);
  return simd ?? '';
}

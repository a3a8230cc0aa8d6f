/** Questions about a page's bytes. */
import { nativePfn, simdArgument, type SimdLevel } from './simd.js';
import { pageBytes } from './page_words.js';

/** Whether one 4096-byte page is all zero. RangeError for another length. */
export function isZeroPage(page: Uint8Array, simd?: SimdLevel): boolean {
  if (page.length !== pageBytes) throw new RangeError(`a page has ${pageBytes} bytes, not ${page.length}`);
  return nativePfn().isZeroPage(simdArgument(simd), page);
}

/** XXH3-128 (seed 0) of any bytes as 32 hexadecimal digits, high half first. */
export const hash128 = (data: Uint8Array, simd?: SimdLevel): string =>
  nativePfn().hash128(simdArgument(simd), data);

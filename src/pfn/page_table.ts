/** Page tables: MFNs to PFNs (canonicalise, on the way out) and back (localise, on the way in). */
import { Buffer } from 'node:buffer';
import { DormouseError } from '../errors.js';
import { nativePfn, simdArgument, type SimdLevel } from './simd.js';
import { pageBytes } from './page_words.js';

export type TableLevel = 1 | 2 | 3 | 4;

/**
 * Both maps of a domain, indexed by pfn and by mfn. An mfn is the domain's only if m2p[mfn] is below p2m's length and
 * p2m[m2p[mfn]], without its top 12 bits, leads back to it.
 */
export interface FrameMaps {
  readonly p2m: BigUint64Array;
  readonly m2p: BigUint64Array;
}

/** Names of what can be wrong with an entry, in the order of native/pfn/canonicalise.h. */
export const tableFaults = [
  'none',
  'superpage',
  'mfn_out_of_range',
  'foreign_mfn',
  'pfn_out_of_range',
  'pfn_no_frame',
] as const;
export type TableFault = (typeof tableFaults)[number];

/** Translated tables, or the first offending entry: which table of the list, which of its 512 entries, its value. */
export type Translation =
  | { readonly fault: 'none'; readonly pages: Buffer; readonly present: number }
  | {
      readonly fault: Exclude<TableFault, 'none'>;
      readonly text: string;
      readonly page: number;
      readonly index: number;
      readonly entry: bigint;
    };

export type Direction = 'canonicalise' | 'localise';

/** The kernels read whole 64-bit entries. */
const aligned = (pages: Uint8Array): Uint8Array => {
  if (pages.byteOffset % 8 === 0) return pages;
  const copy = Buffer.allocUnsafeSlow(pages.length);
  copy.set(pages);
  return copy;
};

/**
 * Translates whole tables of one level without throwing for what they hold. The input is left as it is.
 * `simd` forces one implementation. RangeError for a length that is not whole pages or a level outside 1..4.
 */
export function translateTables(
  direction: Direction,
  maps: FrameMaps,
  level: TableLevel,
  pages: Uint8Array,
  simd?: SimdLevel,
): Translation {
  if (pages.length % pageBytes !== 0) throw new RangeError(`${pages.length} bytes are not whole pages`);
  if (!Number.isInteger(level) || level < 1 || level > 4)
    throw new RangeError(`no page-table level ${level}`);
  const out = Buffer.allocUnsafeSlow(pages.length);
  const toPfns = direction === 'canonicalise';
  const done = nativePfn().translate(
    simdArgument(simd),
    toPfns,
    maps.p2m,
    maps.m2p,
    level,
    aligned(pages),
    out,
  );
  const fault = tableFaults[done.fault];
  if (fault === undefined) throw new DormouseError('INTERNAL', `the addon names fault ${done.fault}`);
  if (fault === 'none') return { fault, pages: out, present: done.present };
  return { fault, text: done.text, page: done.page, index: done.index, entry: done.entry };
}

function translated(result: Translation, code: 'PAGE_TABLE_INVALID' | 'IMAGE_DAMAGED', level: TableLevel) {
  if (result.fault === 'none') return result.pages;
  const where = `entry ${result.index} of a level ${level} table (0x${result.entry.toString(16)})`;
  throw new DormouseError(code, `${where} ${result.text}`);
}

/** Tables with PFNs for MFNs and Xen's own level-4 slots zeroed. Throws PAGE_TABLE_INVALID. */
export const canonicalise = (maps: FrameMaps, level: TableLevel, pages: Uint8Array): Buffer =>
  translated(translateTables('canonicalise', maps, level, pages), 'PAGE_TABLE_INVALID', level);

/** Tables with MFNs for PFNs. Throws IMAGE_DAMAGED, as canonical tables come from an image. */
export const localise = (maps: FrameMaps, level: TableLevel, pages: Uint8Array): Buffer =>
  translated(translateTables('localise', maps, level, pages), 'IMAGE_DAMAGED', level);

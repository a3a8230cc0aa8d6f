/**
 * A page's size, and the words that say which page it is: a *descriptor* has the pfn in bits 0 to 51, the class in 56 to 59
 * and Xen's type in 60 to 63, an *entry* frame and type alike. The twin of native/pfn/page_words.h and native/image/chunk.h.
 */

export const pageBytes = 4096;

const halfWord = 2 ** 32;
const pfnMask = (1n << 52n) - 1n;

/** A number of up to 53 bits as two words of 32, and back; in loops over pages, where BigInt is too slow. */
export const lowHalf = (value: number): number => value % halfWord;
export const highHalf = (value: number): number => Math.floor(value / halfWord);
export const joined = (low: number, high: number): number => low + high * halfWord;

/** Of the high half of a descriptor or entry. */
export const pfnHalf = (high: number): number => high & 0xf_ffff;
export const classOfHalf = (high: number): number => (high >>> 24) & 0xf;
export const typeOfHalf = (high: number): number => high >>> 28;

/** The high half of a descriptor; class 0 makes it that of an entry. */
export const descriptorHalf = (pfn: number, pageClass: number, type: number): number =>
  (highHalf(pfn) | (pageClass << 24) | (type << 28)) >>> 0;

export const descriptor = (pfn: number, pageClass: number, type: number): bigint =>
  BigInt(pfn) | (BigInt(pageClass) << 56n) | (BigInt(type) << 60n);

/** Of a descriptor or entry. */
export const pfnOf = (word: bigint): number => Number(word & pfnMask);
export const classOf = (word: bigint): number => Number((word >> 56n) & 15n);
export const typeOf = (word: bigint): number => Number(word >> 60n);

/** Stands for a frame or pfn where there is none. */
export const noFrame = 0xffff_ffff_ffff_ffffn;

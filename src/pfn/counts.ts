/** Page accounting: every pfn of a domain ends in exactly one class. */
import { pageBytes } from './page_words.js';
import { pageType, tableLevel } from './page_type.js';

/**
 * Page classes by number, of 16. 0 is "absent": as in the parent. 7 counts such pages and is never stored; from 8 on they
 * are free.
 */
export const classNames = [
  'absent',
  'data',
  'zero',
  'table',
  'noFrame',
  'broken',
  'alloc',
  'sameAsParent',
] as const;
export type PageClass = Exclude<(typeof classNames)[number], 'absent'>;

export const classNumber = (name: PageClass): number => classNames.indexOf(name);

/** The class of a page of that type, unless it is found to be all zero. */
export function classOfType(type: number): PageClass {
  if (type === pageType.xtab) return 'noFrame';
  if (type === pageType.broken) return 'broken';
  if (type === pageType.xalloc) return 'alloc';
  return tableLevel(type) === 0 ? 'data' : 'table';
}

/** Pages by class; they add up to the domain's pfns or the image is not committed. */
export interface PageCounts {
  data: number;
  zero: number;
  table: number;
  noFrame: number;
  broken: number;
  alloc: number;
  sameAsParent: number;
}

export const noPages: Readonly<PageCounts> = {
  ...{ data: 0, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 },
};

/** Number of pages in all classes together. */
export function totalPages(counts: Readonly<PageCounts>): number {
  const { data, zero, table, noFrame, broken, alloc, sameAsParent } = counts;
  return data + zero + table + noFrame + broken + alloc + sameAsParent;
}

/** Bytes of the pages that have a frame: what the domain has of memory, however far apart its pfns lie. */
export function memoryBytesOf(counts: Readonly<PageCounts>): number {
  return (totalPages(counts) - counts.noFrame - counts.broken) * pageBytes;
}

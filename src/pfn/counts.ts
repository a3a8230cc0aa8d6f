/** Page accounting: every pfn of a domain ends in exactly one class. */

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

/** Number of pages in all classes together. */
export function totalPages(counts: Readonly<PageCounts>): number {
  const { data, zero, table, noFrame, broken, alloc, sameAsParent } = counts;
  return data + zero + table + noFrame + broken + alloc + sameAsParent;
}

/** Bytes of the pages that have a frame: what the domain has of memory, however far apart its pfns lie. */
export function memoryBytesOf(counts: Readonly<PageCounts>): number {
  return (totalPages(counts) - counts.noFrame - counts.broken) * 4096;
}

/** How large a pfn space may be that somebody else's file describes: each pfn takes memory of the host, with a page or without. */

/** What may be without a page however small the guest is, as the hole below 4 GiB of a PVH guest is. */
const mostEmpty = 2 ** 22;

/** Of a guest of so many pages. A Linux guest is started with at most ten times its memory, and may give most of it back. */
export const mostPfnsFor = (pages: number): number => 16 * pages + mostEmpty;

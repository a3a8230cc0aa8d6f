/** Where a domain is left once the point is found: where it was, at the last good point, or at the first bad one. */
export const leftAt = ['before', 'good', 'bad'] as const;
export type LeftAt = (typeof leftAt)[number];

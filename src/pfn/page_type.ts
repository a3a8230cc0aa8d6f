/** Xen's page types (XEN_DOMCTL_PFINFO_*), as the four bits a p2m entry and an image carry. */
export const pageType = {
  notab: 0x0,
  l1: 0x1,
  l2: 0x2,
  l3: 0x3,
  l4: 0x4,
  /** Or-ed with l1..l4. */
  pinned: 0x8,
  broken: 0xd,
  xalloc: 0xe,
  xtab: 0xf,
} as const;

/** 1..4 for a page table, pinned or not; 0 for anything else. */
export function tableLevel(type: number): 0 | 1 | 2 | 3 | 4 {
  const level = type & 0x7;
  return type < pageType.broken && (level === 1 || level === 2 || level === 3 || level === 4) ? level : 0;
}

/** Whether a page of this type is a pinned page table. */
export const isPinned = (type: number): boolean => tableLevel(type) !== 0 && (type & pageType.pinned) !== 0;

/** Whether content of this type travels (all but broken, xalloc and xtab). */
export const hasBody = (type: number): boolean => type < pageType.broken;

const plainNames: Readonly<Record<number, string>> = {
  [pageType.notab]: 'NOTAB',
  [pageType.broken]: 'BROKEN',
  [pageType.xalloc]: 'XALLOC',
  [pageType.xtab]: 'XTAB',
};

/** Xen's name for a type: NOTAB, L1TAB..L4TAB (PINNED where so), BROKEN, XALLOC, XTAB. */
export function pageTypeName(type: number): string {
  const level = tableLevel(type);
  if (level === 0) return plainNames[type] ?? `type 0x${type.toString(16)}`;
  return `L${level}TAB${isPinned(type) ? ' PINNED' : ''}`;
}

/** A whole image, a file of xl save, an ELF core as of `xl dump-core`, memory with each page at its pfn, memory in LiME's ranges. */
export const exportKinds = ['image', 'xl', 'core', 'raw', 'lime'] as const;
export type ExportKind = (typeof exportKinds)[number];

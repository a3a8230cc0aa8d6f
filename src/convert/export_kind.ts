/** A whole image, a file of xl save, an ELF core as of `xl dump-core`, memory with each page at its pfn. */
export const exportKinds = ['image', 'xl', 'core', 'raw'] as const;
export type ExportKind = (typeof exportKinds)[number];

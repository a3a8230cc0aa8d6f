/** How the pages of an image are stored. Who reads one need not know: each block says how it is coded. */

/** `lz4`: each block is tried; `none`: as they are; `auto`: as they are where LZ4 takes longer than writing what it saves. */
export const compressions = ['lz4', 'auto', 'none'] as const;

export type Compression = (typeof compressions)[number];

export const defaultCompression: Compression = 'lz4';

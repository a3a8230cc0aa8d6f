/**
 * Makes test/golden/format-MAJOR.MINOR.dormouse and the record of what reading it must give. Run once for each version
 * of the format: golden images are never made again.
 */
import { createHash } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon.js';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../src/image/format.js';
import { ImageReader } from '../../src/image/reader.js';
import { page, random, writeImage } from './images.js';

export interface GoldenRecord {
  imageId: string;
  root: string;
  storedBytes: number;
  nrChunks: number;
  counts: Record<string, number>;
  /** The decoded manifest as JSON, bytes as hex. */
  manifest: unknown;
  /** Class, type and SHA-256 of the content of every page. */
  pages: string[];
}

/** Bytes as hex strings, so that a manifest can be compared as JSON. */
export const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, inner: unknown) => {
      const bytes = inner as { type?: unknown; data?: number[] } | null;
      return bytes?.type === 'Buffer' && bytes.data ? Buffer.from(bytes.data).toString('hex') : inner;
    }),
  );

export async function record(path: string): Promise<GoldenRecord> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    const pages = Array.from({ length: reader.nrPfns }, (_, pfn) => {
      const { pageClass, type } = reader.pageEntry(pfn);
      const digest = createHash('sha256')
        .update(reader.readPages([pfn]))
        .digest('hex');
      return `${pageClass} ${type} ${digest}`;
    });
    const { imageId, root, storedBytes, nrChunks, counts } = reader;
    return {
      imageId,
      root,
      storedBytes,
      nrChunks,
      counts: { ...counts },
      manifest: plain(reader.manifest),
      pages,
    };
  } finally {
    reader.close();
  }
}

export const goldenPath = (version: string): string =>
  join(packageRoot, `test/golden/format-${version}.dormouse`);

if (process.argv[1]?.endsWith('make_golden.js')) {
  const path = goldenPath(`${FORMAT_MAJOR}.${FORMAT_MINOR}`);
  if (existsSync(path)) throw new Error(`${path} exists; a golden image stays as it is`);
  const next = random(2026);
  const pages = Array.from({ length: 64 }, (_, pfn) => page(pfn, next));
  const small = pages.map((p, i) =>
    p.body && i % 8 > 0 ? { ...p, body: Buffer.alloc(4096, `page ${i} `) } : p,
  );
  await writeImage(path, 64, [small.slice(0, 40), small.slice(40), small.slice(10, 12)]);
  writeFileSync(`${path}.json`, `${JSON.stringify(await record(path), null, 1)}\n`);
}

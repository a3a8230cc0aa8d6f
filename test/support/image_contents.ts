/** An image read whole, page by page: what is said of images by other means is held against this. */
import { Buffer } from 'node:buffer';
import { ImageReader } from '../../src/image/reader.js';
import type { PageClass } from '../../src/pfn/counts.js';
import { pageBytes } from '../../src/pfn/page_words.js';

export interface ReadPage {
  readonly pageClass: PageClass;
  readonly type: number;
  readonly body: Buffer;
}

const absent: ReadPage = { pageClass: 'noFrame', type: 15, body: Buffer.alloc(pageBytes) };

/** Every page; `blank` makes of a page what of it counts. */
export async function contentsOf(
  path: string,
  blank: (pfn: number, body: Buffer) => void = () => undefined,
): Promise<ReadPage[]> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    return Array.from({ length: reader.nrPfns }, (_, pfn) => {
      const { pageClass, type } = reader.pageEntry(pfn);
      const body = reader.readPages([pfn]);
      blank(pfn, body);
      return { pageClass, type, body };
    });
  } finally {
    reader.close();
  }
}

/** Pfns whose type or content differs, as `from-class to-class` and all pfns of it. */
export function differencesOf(from: readonly ReadPage[], to: readonly ReadPage[]): Record<string, number[]> {
  const found: Record<string, number[]> = {};
  for (let pfn = 0; pfn < Math.max(from.length, to.length); pfn++) {
    const [was, is] = [from[pfn] ?? absent, to[pfn] ?? absent];
    if (was.type === is.type && was.body.equals(is.body)) continue;
    (found[`${was.pageClass} ${is.pageClass}`] ??= []).push(pfn);
  }
  return found;
}

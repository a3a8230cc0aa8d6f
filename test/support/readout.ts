/** All pages of a domain that stands still in canonical form, read and translated without the engine. */
import assert from 'node:assert/strict';
import type { Host, MemoryView } from '../../src/host/contract.js';
import { ImageReader } from '../../src/image/reader.js';
import { steps } from '../../src/worker/steps.js';
import { tableLevel, words } from './embedded.js';
import { typeOf } from '../../src/pfn/page_words.js';

const frameMask = ((1n << 52n) - 1n) & ~0xfffn;
const mfnMask = (1n << 52n) - 1n;
/** The mark of a frame that the hypervisor lends, in an entry of an image of a paused guest. */
export const lentMark = 1n << 51n;

export interface Readout {
  readonly types: readonly number[];
  readonly pages: ReadonlyMap<number, Buffer>;
}

function canonicalise(page: Buffer, level: number, pfnOf: ReadonlyMap<bigint, bigint>): void {
  const entries = words(page);
  entries.forEach((entry, i) => {
    if (level === 4 && i >= 256 && i <= 271) entries[i] = 0n;
    else if (entry & 1n) {
      const pfn = pfnOf.get((entry & frameMask) >> 12n);
      entries[i] = pfn === undefined ? entry | lentMark : (entry & ~frameMask) | (pfn << 12n);
    }
  });
}

/** The same of a domain whose page tables are pages as any other: as they are, MFNs and all. */
export function readOutRaw(host: Host, domid: number): Promise<Readout> {
  return readPages(host, domid, false);
}

export function readOut(host: Host, domid: number): Promise<Readout> {
  return readPages(host, domid, true);
}

async function readPages(host: Host, domid: number, canonical: boolean): Promise<Readout> {
  const { nrPfns } = await host.geometry(domid);
  const view = await host.openMemory(domid);
  try {
    return readOutView(view, nrPfns, canonical);
  } finally {
    view.close();
  }
}

/** The same of what a view shows, which may be a snapshot that can be read again and again. */
export function readOutView(view: MemoryView, nrPfns: number, canonical: boolean): Readout {
  const types: number[] = [];
  const pfnOf = new Map<bigint, bigint>();
  const pages = new Map<number, Buffer>();
  for (let first = 0; first < nrPfns; first += 1024)
    steps()
      .queryPages(view.handle, first, Math.min(1024, nrPfns - first))
      .forEach((entry, i) => {
        const type = typeOf(entry);
        types.push(canonical || type >= 0xd ? type : 0);
        if ((entry & mfnMask) !== mfnMask) pfnOf.set(entry & mfnMask, BigInt(first + i));
        if (type >= 0xd) return;
        pages.set(first + i, steps().readPages(view.handle, BigUint64Array.of(BigInt(first + i))));
      });
  for (const [pfn, page] of pages) {
    const level = tableLevel(types[pfn] ?? 0);
    if (level) canonicalise(page, level, pfnOf);
  }
  return { types, pages };
}

function assertSamePage(image: Buffer, memory: Buffer, what: string): void {
  if (image.equals(memory)) return;
  const at = image.findIndex((byte, i) => byte !== memory[i]) & ~7;
  const [stored, real] = [image, memory].map((page) => page.readBigUInt64LE(at).toString(16));
  assert.fail(`${what}: 0x${stored} at ${at} in the image, 0x${real} in memory`);
}

/** Fails naming the first page of the image that is not the readout's. `mayHoldMore`: pages without a frame, too. */
export async function assertSame(
  path: string,
  readout: Readout,
  { mayHoldMore = false }: { readonly mayHoldMore?: boolean } = {},
): Promise<void> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    assert.equal(reader.nrPfns, readout.types.length);
    readout.types.forEach((type, pfn) => {
      if (mayHoldMore && type === 0xf) return;
      assert.equal(reader.pageEntry(pfn).type, type, `type of pfn ${pfn}`);
      const page = readout.pages.get(pfn);
      if (page) assertSamePage(reader.readPages([pfn]), page, `pfn ${pfn} (type ${type})`);
    });
  } finally {
    reader.close();
  }
}

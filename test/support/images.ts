/** Images for tests: page sets made from a seed, their manifest, and a writer over them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { ImageWriter, type CommittedImage, type WriterOptions } from '../../src/image/writer.js';
import type { Manifest } from '../../src/image/manifest.js';
import { type PageClass, classNumber, type PageCounts } from '../../src/pfn/counts.js';
import { descriptor, pageBytes } from '../../src/pfn/page_words.js';

export interface TestPage {
  readonly pfn: number;
  readonly pageClass: PageClass;
  readonly type: number;
  /** 4096 bytes for data and table, else null. */
  readonly body: Buffer | null;
}

/** A small deterministic generator (xorshift32), so that failures can be replayed from their seed. */
export function random(seed: number): (below: number) => number {
  let state = (seed ^ 0x9e37_79b9) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

export function desc({ pfn, pageClass, type }: Pick<TestPage, 'pfn' | 'pageClass' | 'type'>): bigint {
  return descriptor(pfn, classNumber(pageClass), type);
}

/** Compressible, incompressible or nearly empty contents, by turns. */
export function body(next: (below: number) => number): Buffer {
  const page = Buffer.alloc(pageBytes);
  const kind = next(3);
  if (kind === 0) for (let i = 0; i < pageBytes; i += 4) page.writeUInt32LE(next(0xffff_ffff), i);
  else if (kind === 1) page.fill(`text ${next(1000)} `);
  else page.writeUInt32LE(next(0xffff_ffff), 4 * next(1024));
  return page;
}

const kinds: readonly (readonly [PageClass, readonly number[]])[] = [
  ['data', [0]],
  ['zero', [0]],
  ['table', [1, 2, 3, 4, 9, 10, 11, 12]],
  ['noFrame', [15]],
  ['broken', [13]],
  ['alloc', [14]],
];

export function page(pfn: number, next: (below: number) => number): TestPage {
  const [pageClass, types] = kinds[next(3) === 0 ? next(kinds.length) : next(2)] ?? ['data', [0]];
  const type = types[next(types.length)] ?? 0;
  const hasBody = pageClass === 'data' || pageClass === 'table';
  return { pfn, pageClass, type, body: hasBody ? body(next) : null };
}

export function countPages(pages: Iterable<TestPage>): PageCounts {
  const counts = { data: 0, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 };
  for (const { pageClass } of pages) counts[pageClass]++;
  return counts;
}

export function manifestFor(nrPfns: number, pages: PageCounts, change: Partial<Manifest> = {}): Manifest {
  const empty = Buffer.alloc(0);
  return {
    tool: 'dormouse test',
    createdAt: '2026-01-02T03:04:05Z',
    consistency: 'suspend-point',
    domain: {
      name: 'guest',
      uuid: '01234567-89ab-cdef-0123-456789abcdef',
      type: 'pv',
      vcpus: 1,
      maxMemoryKib: nrPfns * 4,
      config: '{}',
    },
    hostKind: 'embedded',
    geometry: { nrPfns, guestWidth: 8, p2mFrames: [1, 2, 3], p2mGeneration: 7 },
    state: {
      vcpus: [{ id: 0, basic: Buffer.alloc(64, 5), extended: empty, xsave: empty, msrs: empty }],
      sharedInfo: Buffer.alloc(32, 3),
      tscInfo: empty,
      cpuidPolicy: empty,
      msrPolicy: empty,
      hvmContext: empty,
      hvmParams: empty,
    },
    pages,
    timings: { pauseUs: 1, elapsedUs: 2 ** 33 + 1 },
    ...change,
  };
}

/** Of a guest whose registers say nothing of its pages. */
export const pvhDomain: Manifest['domain'] = {
  ...{ name: 'guest', uuid: '01234567-89ab-cdef-0123-456789abcdef', type: 'pvh' },
  ...{ vcpus: 1, maxMemoryKib: 1, config: '{}' },
};

export function append(writer: ImageWriter, lane: number, pages: readonly TestPage[]): void {
  const bodies = pages.flatMap((p) => (p.body ? [p.body] : []));
  writer.append(lane, BigUint64Array.from(pages.map(desc)), Buffer.concat(bodies));
}

/** Writes these pages, one append each, and commits. */
export async function writeImage(
  path: string,
  nrPfns: number,
  appends: readonly (readonly TestPage[])[],
  options: Partial<WriterOptions> = {},
  manifest: Partial<Manifest> = {},
): Promise<CommittedImage> {
  const lanes = options.lanes ?? 2;
  const writer = await ImageWriter.create(path, { nrPfns, lanes, consistency: 'suspend-point', ...options });
  appends.forEach((pages, i) => append(writer, i % lanes, pages));
  return writer.commit(manifestFor(nrPfns, writer.counts(), manifest));
}

/** A temporary folder that goes with the test. */
export function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-image-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** What increments would gain by deltas: how much, by how old the page is that they rest on, and what that page and the coding cost. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deltaApply, deltaCompress } from '../src/codec/delta.js';
import { lz4Compress } from '../src/codec/lz4.js';
import { embeddedConfig } from '../src/host/embedded/guest_config.js';
import { startHost, stopHost } from '../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../src/host/open/open_host.js';
import { ImageReader } from '../src/image/reader.js';
import { pageBytes } from '../src/pfn/page_words.js';
import { PointSession } from '../src/protect/point_session.js';
import { PointStore } from '../src/store/store.js';
import { figure } from './figure.js';

const guest = 'deltas';
const mib = 64;
const blockPages = 16;

export interface DeltasBench {
  readonly dir: string;
  readonly programs: readonly ('writer' | 'churner')[];
  readonly everyMs: readonly number[];
  /** How many points before the last one the image is that the deltas rest on. */
  readonly ages: readonly number[];
}

/** The guest runs; a point every so many milliseconds. Their paths, the newest last. */
async function takePoints(
  folder: string,
  program: 'writer' | 'churner',
  { count, everyMs }: { readonly count: number; readonly everyMs: number },
): Promise<string[]> {
  await startHost({ name: guest, memoryBytes: 4 * mib * 2 ** 20 });
  const host = await openEmbeddedHost(guest);
  try {
    const config = embeddedConfig({ program, rate: 5000, skewPercent: 80, fillPercent: 75 });
    const spec = {
      name: guest,
      uuid: randomUUID(),
      type: 'pv',
      maxMemoryKib: mib * 1024,
      vcpus: 1,
      config,
    } as const;
    await host.create(spec, { paused: false });
    const session = await PointSession.open(host, guest, await PointStore.open(folder, { create: true }));
    try {
      const paths: string[] = [];
      for (let taken = 0; taken < count; taken++) {
        if (taken > 0) await sleep(everyMs);
        paths.push((await session.take({ mode: 'light', reason: 'protect' })).path);
      }
      return paths;
    } finally {
      await session.end();
    }
  } finally {
    await host.close();
    await stopHost(guest, { force: true });
  }
}

/** Ordinary pages that the image's own file holds, and that were so in the older one too. */
function changedPages(image: ImageReader, older: ImageReader): number[] {
  const pfns: number[] = [];
  for (let pfn = 0; pfn < Math.min(image.nrPfns, older.nrPfns); pfn++) {
    const { chunk, pageClass } = image.pageEntry(pfn);
    const own = chunk >= 0 && image.chunk(chunk).source === 0;
    if (own && pageClass === 'data' && older.pageEntry(pfn).pageClass === 'data') pfns.push(pfn);
  }
  return pfns;
}

interface Coded {
  bytes: number;
  us: number;
}

/** Block by block; what does not shrink counts as it is. */
function coded(pages: Buffer, blockBytes: number, code: (from: number, to: number) => Buffer | null): Coded {
  const startedMs = performance.now();
  let bytes = 0;
  for (let from = 0; from < pages.length; from += blockBytes) {
    const to = Math.min(pages.length, from + blockBytes);
    bytes += code(from, to)?.length ?? to - from;
  }
  return { bytes, us: (performance.now() - startedMs) * 1000 };
}

const lz4Blocks = (pages: Buffer): Coded =>
  coded(pages, blockPages * pageBytes, (from, to) => lz4Compress(pages.subarray(from, to)));

/** The microseconds of it, the second time: what it needs is in the page cache then. */
function warmUs(work: () => void): number {
  work();
  const startedMs = performance.now();
  work();
  return (performance.now() - startedMs) * 1000;
}

interface Gain {
  readonly pages: number;
  readonly whole: Coded;
  readonly delta: Coded;
  /** Each page by itself. */
  readonly single: Coded;
  readonly applyUs: number;
  readonly readUs: number;
}

function gainOf(image: ImageReader, base: ImageReader): Gain {
  const pfns = changedPages(image, base);
  const [now, then] = [image.readPages(pfns), base.readPages(pfns)];
  const delta = (from: number, to: number): Buffer | null =>
    deltaCompress(now.subarray(from, to), then.subarray(from, to));
  const block = blockPages * pageBytes;
  const deltas: Buffer[] = [];
  for (let at = 0; at < now.length; at += block) deltas.push(delta(at, at + block) ?? Buffer.alloc(0));
  return {
    pages: pfns.length,
    whole: lz4Blocks(now),
    delta: coded(now, block, delta),
    single: coded(now, pageBytes, delta),
    applyUs: warmUs(() =>
      deltas.forEach((stored, i) => {
        if (stored.length) deltaApply(stored, then.subarray(i * block, (i + 1) * block));
      }),
    ),
    readUs: warmUs(() => base.readPages(pfns)),
  };
}

function reportGain(name: string, { pages, whole, delta, single, applyUs, readUs }: Gain): void {
  const each = (value: number): string => (value / pages).toPrecision(3);
  figure({
    name,
    ...{ value: 100 * (1 - delta.bytes / whole.bytes), unit: '% saved' },
    ...{ limitName: 'LZ4, bytes a page', limit: whole.bytes / pages },
    ratio: delta.bytes / whole.bytes,
    note:
      `${pages} pages; a page: ${each(delta.bytes)} bytes (coded alone ${each(single.bytes)}), LZ4 ${each(whole.us)} us, ` +
      `delta ${each(delta.us)} us, applying it ${each(applyUs)} us, reading what it rests on ${each(readUs)} us`,
  });
}

/** The pages that a writer stored whole last and still has in memory, and what storing by them comes to. */
class WholePages {
  readonly pages = new Map<number, Buffer>();
  /** Pages of the increments, and of those as deltas. */
  changed = 0;
  deltas = 0;
  deltaBytes = 0;
  /** LZ4 in blocks: of the others, and of all, had there been no deltas. */
  restBytes = 0;
  plainBytes = 0;

  /** One increment. A delta rests on a page stored whole, never on a delta, and is worth it at half of what that would take. */
  put(image: ImageReader, parent: ImageReader): void {
    const pfns = changedPages(image, parent);
    const now = image.readPages(pfns);
    const rest: Buffer[] = [];
    pfns.forEach((pfn, i) => {
      const page = now.subarray(i * pageBytes, (i + 1) * pageBytes);
      const base = this.pages.get(pfn);
      const most = (lz4Compress(page)?.length ?? pageBytes) >> 1;
      const delta = base ? deltaCompress(page, base, most) : null;
      this.deltaBytes += delta?.length ?? 0;
      if (delta) this.deltas++;
      else rest.push(page);
      if (!delta) this.pages.set(pfn, page);
    });
    this.changed += pfns.length;
    this.restBytes += lz4Blocks(Buffer.concat(rest)).bytes;
    this.plainBytes += lz4Blocks(now).bytes;
  }
}

function reportChain(name: string, images: readonly ImageReader[]): void {
  const whole = new WholePages();
  images.slice(1).forEach((image, i) => whole.put(image, images[i] ?? image));
  const { changed, deltas, deltaBytes, restBytes, plainBytes } = whole;
  figure({
    name,
    ...{ value: 100 * (1 - (deltaBytes + restBytes) / plainBytes), unit: '% saved' },
    ...{ limitName: 'LZ4, bytes a page', limit: plainBytes / changed },
    ratio: (deltaBytes + restBytes) / plainBytes,
    note:
      `${images.length - 1} increments, ${changed} pages, ${deltas} of them as deltas of ${(deltaBytes / deltas).toPrecision(3)} bytes ` +
      `on a page stored whole; in memory ${whole.pages.size} pages`,
  });
}

async function measurePoints(name: string, paths: readonly string[], ages: readonly number[]): Promise<void> {
  const images: ImageReader[] = [];
  try {
    for (const path of paths) images.push(await ImageReader.open(path, { lanes: 1 }));
    for (const age of ages) {
      const [image, base] = [images.at(-1), images.at(-1 - age)];
      if (image && base) reportGain(`${name}_age_${age}`, gainOf(image, base));
    }
    reportChain(`${name}_chain`, images);
  } finally {
    for (const image of images) image.close();
  }
}

export async function benchDeltas({ dir, programs, everyMs, ages }: DeltasBench): Promise<void> {
  for (const program of programs)
    for (const every of everyMs) {
      const folder = mkdtempSync(join(dir, 'store-'));
      // The first is of all of memory and has more changed pages behind it than one of the series.
      const paths = await takePoints(folder, program, { count: Math.max(...ages) + 2, everyMs: every });
      await measurePoints(`delta_${program}_${every}ms`, paths, ages);
      rmSync(folder, { recursive: true });
    }
}

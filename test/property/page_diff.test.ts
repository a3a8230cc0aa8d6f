/** What differs between two images is what differs between them read whole, whichever files hold their pages. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { type ClassDiff, diffPages } from '../../src/diff/page_diff.js';
import { digestImage } from '../../src/digest/digest.js';
import { DeltaBases } from '../../src/image/delta_bases.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { pfnsOf } from '../../src/pfn/pfn_runs.js';
import { closeWorkers, laneCount } from '../../src/worker/pool.js';
import { writeIncrement } from '../support/chains.js';
import { contentsOf, differencesOf } from '../support/image_contents.js';
import { page, pvhDomain, random, tempDir, writeImage, type TestPage } from '../support/images.js';

after(closeWorkers);

async function diffOf(from: string, to: string, pageHashes = true): Promise<ClassDiff[]> {
  const was = await ImageReader.open(from, { lanes: laneCount, pageHashes });
  try {
    const is = await ImageReader.open(to, { lanes: laneCount, pageHashes });
    try {
      return await diffPages({ from: was, to: is });
    } finally {
      is.close();
    }
  } finally {
    was.close();
  }
}

const pfnsByClasses = (diff: readonly ClassDiff[]): Record<string, number[]> =>
  Object.fromEntries(diff.map(({ from, to, runs }) => [`${from} ${to}`, [...pfnsOf(runs)]]));

/** Compares, both ways, by stored hashes and by content alone. */
async function check(from: string, to: string): Promise<number> {
  const [was, is] = [await contentsOf(from), await contentsOf(to)];
  const diff = await diffOf(from, to);
  assert.deepEqual(pfnsByClasses(diff), differencesOf(was, is));
  assert.deepEqual(pfnsByClasses(await diffOf(from, to, false)), differencesOf(was, is));
  assert.deepEqual(pfnsByClasses(await diffOf(to, from)), differencesOf(is, was));
  let pages = 0;
  for (const { count, runs } of diff) {
    assert.equal(count, [...pfnsOf(runs)].length);
    for (const [i, [first]] of runs.entries()) {
      const [before = -2, length = 0] = runs[i - 1] ?? [];
      assert.ok(first > before + length, 'two runs that are one');
    }
    pages += count;
  }
  assert.equal(pages === 0, (await digestImage(from)).digest === (await digestImage(to)).digest);
  return pages;
}

/** The domain goes on: some pages change, some come back to what they were, its pfn space grows or shrinks. */
function goOn(pages: readonly TestPage[], before: readonly TestPage[], next: (below: number) => number) {
  const nrPfns = next(3) === 0 ? Math.max(1, pages.length + next(100) - 50) : pages.length;
  return Array.from({ length: nrPfns }, (_, pfn) => {
    const now = pages[pfn] ?? page(pfn, next);
    if (next(12) > 0) return now;
    if (now.body && next(2) === 0) {
      const body = Buffer.from(now.body);
      body.writeUInt32LE(next(2 ** 31), 4 * next(1024));
      return { ...now, body };
    }
    return next(3) === 0 ? (before[pfn] ?? now) : page(pfn, next);
  });
}

const hashed = (pageHashes: boolean, deltas: DeltaBases) => ({ pageHashes, ...(pageHashes && { deltas }) });

test('images of chains and whole ones, by random pairs', async (t) => {
  const folder = tempDir(t);
  let [runs, compared, differing, ofDeltas] = [0, 0, 0, 0];
  const oneOf = async (seed: number): Promise<void> => {
    const dir = join(folder, String(runs++));
    mkdirSync(dir);
    const next = random(seed);
    const deltas = new DeltaBases();
    let pages = Array.from({ length: 1 + next(1500) }, (_, pfn) => page(pfn, next));
    const first = pages;
    const paths = [join(dir, 'whole-0')];
    await writeImage(paths[0] ?? '', pages.length, [pages], hashed(next(2) === 0, deltas), {
      domain: pvhDomain,
    });
    for (let n = 1, last = paths[0] ?? ''; n <= 4; n++) {
      pages = goOn(pages, first, next);
      const [path, whole] = [join(dir, `point-${n}`), join(dir, `whole-${n}`)];
      await writeIncrement(path, last, pages.length, pages, {
        ...hashed(next(4) > 0, deltas),
        fullMap: next(3) === 0,
      });
      ofDeltas += (await inspectImage(path)).chunks.ofDeltas;
      await writeImage(whole, pages.length, [pages], { pageHashes: next(2) === 0 }, { domain: pvhDomain });
      paths.push(path, whole);
      last = path;
    }
    deltas.close();
    for (let i = 0; i < 5; i++) {
      const [from, to] = [paths[next(paths.length)] ?? '', paths[next(paths.length)] ?? ''];
      differing += await check(from, to);
      compared++;
    }
  };
  await fc.assert(fc.asyncProperty(fc.nat(), oneOf), { numRuns: 40, includeErrorInReport: true });
  t.diagnostic(`${compared} pairs, ${differing} pages that differ`);
  assert.ok(differing > 0 && ofDeltas > 0);
});

test('a page of zeroes is that, stored or not', async (t) => {
  const dir = tempDir(t);
  const stored = { pageClass: 'data', type: 0, body: Buffer.alloc(4096) } as const;
  const zero = { pageClass: 'zero', type: 0, body: null } as const;
  const other = { ...stored, body: Buffer.alloc(4096, 1) };
  const write = async (name: string, kinds: readonly Omit<TestPage, 'pfn'>[]): Promise<string> => {
    const pages = kinds.map((kind, pfn) => ({ pfn, ...kind }));
    await writeImage(join(dir, name), pages.length, [pages], {}, { domain: pvhDomain });
    return join(dir, name);
  };
  const from = await write('from', [stored, zero, stored, zero, other]);
  const to = await write('to', [zero, stored, other, other, zero]);
  await check(from, to);
  assert.deepEqual(pfnsByClasses(await diffOf(from, to)), {
    'data data': [2],
    'data zero': [4],
    'zero data': [3],
  });
});

for (const pageHashes of [false, true])
  test(`what lies at one place for both is not read, ${pageHashes ? 'nor what has a hash' : 'but what has no hash'}`, async (t) => {
    const dir = tempDir(t);
    const next = random(7);
    const bodyOf = (pfn: number): TestPage => ({
      ...{ pfn, pageClass: 'data', type: 0 },
      body: Buffer.alloc(4096, `${pfn} ${next(1e6)} `),
    });
    const pages = Array.from({ length: 1024 }, (_, pfn) => bodyOf(pfn));
    const [base, first, second, whole] = ['base', 'first', 'second', 'whole'].map((name) => join(dir, name));
    assert.ok(base && first && second && whole);
    await writeImage(base, pages.length, [pages], { pageHashes }, { domain: pvhDomain });
    const changed = pages.map((one) => (one.pfn === 1000 ? bodyOf(1000) : one));
    await writeIncrement(first, base, pages.length, changed, { pageHashes });
    const later = pages.map((one) => (one.pfn >= 1000 ? bodyOf(one.pfn) : one));
    await writeIncrement(second, first, pages.length, later, { pageHashes });
    await writeImage(whole, pages.length, [later], {}, { domain: pvhDomain });
    const reader = await ImageReader.open(base, { lanes: 1 });
    const { offset, span } = reader.chunk(reader.pageEntry(0).chunk);
    assert.notEqual(reader.pageEntry(0).chunk, reader.pageEntry(1010).chunk);
    reader.close();
    const bytes = readFileSync(base);
    bytes.writeUInt8(bytes.readUInt8(offset + span / 2) ^ 1, offset + span / 2);
    writeFileSync(base, bytes);
    assert.deepEqual(pfnsByClasses(await diffOf(first, second)), {
      'data data': Array.from({ length: 24 }, (_, i) => 1000 + i),
    });
    if (pageHashes) assert.deepEqual(await diffOf(whole, second), []);
    else await assert.rejects(diffOf(whole, second), { code: 'IMAGE_DAMAGED', message: /base/u });
  });

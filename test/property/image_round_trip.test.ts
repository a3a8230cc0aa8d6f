import assert from 'node:assert/strict';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { compressions } from '../../src/codec/compression.js';
import { ImageReader } from '../../src/image/reader.js';
import { nativeImage } from '../../src/image/native.js';
import { verifyImage } from '../../src/image/verify.js';
import { chunkCodecs } from '../support/chunk_codecs.js';
import { countPages, page, random, tempDir, writeImage, type TestPage } from '../support/images.js';

/** Every pfn at least once, some again, in any order, cut into appends of any size. */
function plan(seed: number, nrPfns: number): { appends: TestPage[][]; last: Map<number, TestPage> } {
  const next = random(seed);
  const order = Array.from({ length: nrPfns }, (_, pfn) => pfn);
  if (next(2) === 0)
    for (let i = order.length - 1; i > 0; i--) {
      const j = next(i + 1);
      [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
    }
  for (let again = next(40); again > 0; again--) order.push(next(nrPfns));
  const last = new Map<number, TestPage>();
  const appends: TestPage[][] = [];
  while (order.length > 0) {
    const pages = order.splice(0, 1 + next(next(2) ? 40 : 700)).map((pfn) => page(pfn, next));
    for (const p of pages) last.set(p.pfn, p);
    appends.push(pages);
  }
  return { appends, last };
}

function checkPages(reader: ImageReader, last: Map<number, TestPage>): void {
  const pfns = [...last.keys()].sort((a, b) => a - b);
  const found = reader.readPages(pfns);
  pfns.forEach((pfn, i) => {
    const expected = last.get(pfn);
    const { pageClass, type } = reader.pageEntry(pfn);
    assert.deepEqual({ pageClass, type }, { pageClass: expected?.pageClass, type: expected?.type });
    const content = found.subarray(i * 4096, (i + 1) * 4096);
    assert.ok(content.equals(expected?.body ?? Buffer.alloc(4096)), `pfn ${pfn}`);
  });
}

function checkLists(reader: ImageReader, last: Map<number, TestPage>): void {
  const pages = [...last.values()].sort((a, b) => a.pfn - b.pfn);
  const inRuns = reader
    .frameRuns()
    .flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i));
  const framed = pages.filter((p) => p.pageClass !== 'noFrame' && p.pageClass !== 'broken');
  assert.deepEqual(
    inRuns,
    framed.map((p) => p.pfn),
  );
  assert.deepEqual(
    reader.tables(),
    pages
      .filter((p) => p.pageClass === 'table')
      .map((p) => ({ pfn: p.pfn, level: p.type & 7, pinned: p.type >= 8 })),
  );
}

/** What a restore does: walk the chunks and take the pages that count. */
function checkChunks(reader: ImageReader, last: Map<number, TestPage>): void {
  const seen = new Set<number>();
  for (let chunk = 0; chunk < reader.nrChunks; chunk++) {
    reader.checkChunk(0, chunk);
    const { descs, bodies } = reader.readChunk(1, chunk);
    let at = 0;
    descs.forEach((value, slot) => {
      const pfn = Number(value & 0xf_ffff_ffff_ffffn);
      const pageClass = Number((value >> 56n) & 15n);
      const content = pageClass === 1 || pageClass === 3 ? bodies.subarray(at, (at += 4096)) : null;
      const entry = reader.pageEntry(pfn);
      if (entry.chunk !== chunk || entry.slot !== slot) return;
      assert.ok(!seen.has(pfn));
      seen.add(pfn);
      assert.deepEqual(content, last.get(pfn)?.body ?? null);
    });
    assert.equal(at, bodies.length);
  }
  const withBody = [...last.values()].filter(({ body }) => body !== null);
  assert.equal(seen.size, withBody.length);
}

test('what was put last is what is read, whatever the order, classes, lanes, duplicates and codec', async (t) => {
  const dir = tempDir(t);
  let file = 0;
  const parameters = fc.tuple(
    fc.nat(),
    fc.integer({ min: 1, max: 3000 }),
    fc.integer({ min: 1, max: 5 }),
    fc.boolean(),
    fc.constantFrom(...compressions),
  );
  await fc.assert(
    fc.asyncProperty(parameters, async ([seed, nrPfns, lanes, directIo, compression]) => {
      const path = join(dir, `${file++}.dormouse`);
      const { appends, last } = plan(seed, nrPfns);
      const unnamedFile = seed % 4 > 0;
      const done = await writeImage(path, nrPfns, appends, { lanes, directIo, unnamedFile, compression });
      assert.deepEqual(readdirSync(dir), [basename(path)]);
      assert.equal(done.storedBytes, statSync(path).size);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      for (const { codec, compressed } of chunkCodecs(path)) {
        assert.equal(codec, compressed > 0 ? 1 : 0);
        if (compression === 'none') assert.equal(codec, 0);
      }
      const reader = await ImageReader.open(path, { lanes: 2 });
      try {
        assert.equal(reader.root, done.root);
        assert.deepEqual(reader.counts, countPages(last.values()));
        checkPages(reader, last);
        checkLists(reader, last);
        checkChunks(reader, last);
      } finally {
        reader.close();
      }
      const report = await verifyImage(path);
      assert.deepEqual(report.findings, []);
      assert.equal(report.root, done.root);
      assert.equal(report.bytesRead, done.storedBytes);
      rmSync(path);
    }),
    { numRuns: 40 },
  );
  assert.equal(nativeImage().openImages(), 0);
});

import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestImage } from '../../src/digest/digest.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter } from '../../src/image/writer.js';
import { verifyImage } from '../../src/image/verify.js';
import { writeIncrement } from '../support/chains.js';
import { contentRootOf } from '../support/content_root.js';
import {
  countPages,
  manifestFor,
  page,
  pvhDomain,
  random,
  tempDir,
  writeImage,
  type TestPage,
} from '../support/images.js';

function assertPages(reader: ImageReader, expected: ReadonlyMap<number, TestPage>): void {
  const pfns = [...expected.keys()].sort((a, b) => a - b);
  const found = reader.readPages(pfns);
  pfns.forEach((pfn, i) => {
    const wanted = expected.get(pfn);
    const { pageClass, type } = reader.pageEntry(pfn);
    assert.deepEqual({ pageClass, type }, { pageClass: wanted?.pageClass, type: wanted?.type });
    const content = found.subarray(i * 4096, (i + 1) * 4096);
    assert.ok(content.equals(wanted?.body ?? Buffer.alloc(4096)), `pfn ${pfn}`);
  });
  assert.deepEqual(reader.counts, countPages(expected.values()));
}

/** The pages of a domain as it goes on: some change, its pfn space grows or shrinks, most stays. */
class Domain {
  readonly pages = new Map<number, TestPage>();
  constructor(
    private readonly next: (below: number) => number,
    public nrPfns: number,
  ) {
    for (let pfn = 0; pfn < nrPfns; pfn++) this.pages.set(pfn, page(pfn, next));
  }
  goOn(): void {
    const { next, pages } = this;
    if (next(4) === 0) this.nrPfns = Math.max(1, this.nrPfns + next(100) - 50);
    for (const pfn of pages.keys()) if (pfn >= this.nrPfns) pages.delete(pfn);
    for (let pfn = 0; pfn < this.nrPfns; pfn++) if (!pages.has(pfn)) pages.set(pfn, page(pfn, next));
    for (let changes = next(60); changes > 0; changes--) {
      const first = next(this.nrPfns);
      for (let pfn = first; pfn < Math.min(this.nrPfns, first + 1 + next(9)); pfn++)
        pages.set(pfn, page(pfn, next));
    }
  }
}

test('each point of a chain holds what the domain held then', async (t) => {
  const folder = tempDir(t);
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(), async (seed) => {
      const dir = join(folder, String(runs++));
      mkdirSync(dir);
      const at = (n: number) => join(dir, `point-${n}`);
      const next = random(seed);
      const domain = new Domain(next, 1 + next(2500));
      const hashed = next(3) > 0;
      await writeImage(at(0), domain.nrPfns, [[...domain.pages.values()]], { pageHashes: hashed });
      for (let n = 1; n <= 6; n++) {
        domain.goOn();
        const done = await writeIncrement(at(n), at(n - 1), domain.nrPfns, [...domain.pages.values()], {
          ...{ pageHashes: hashed, fullMap: next(3) === 0 },
        });
        const reader = await ImageReader.open(at(n), { lanes: 1 });
        try {
          assertPages(reader, domain.pages);
          assert.equal(reader.header.sequence, n);
          assert.equal(reader.contentRoot, hashed ? contentRootOf(domain.pages.values()) : null);
        } finally {
          reader.close();
        }
        const report = await verifyImage(at(n));
        assert.deepEqual(report.findings, []);
        assert.equal(report.root, done.root);
        const same = join(dir, 'same');
        await writeImage(same, domain.nrPfns, [[...domain.pages.values()]], {}, { domain: pvhDomain });
        assert.equal((await digestImage(at(n))).digest, (await digestImage(same)).digest);
        rmSync(same);
      }
      rmSync(dir, { recursive: true });
    }),
    { numRuns: 12 },
  );
  assert.equal(nativeImage().openImages(), 0);
});

const data = (pfn: number, fill: number): TestPage => ({
  ...{ pfn, pageClass: 'data', type: 0 },
  body: Buffer.alloc(4096, fill),
});

/** 64 pages, and one other in each of `count` increments. */
async function plainChain(dir: string, count: number): Promise<string[]> {
  const paths = Array.from({ length: count + 1 }, (_, n) => join(dir, `point-${n}`));
  const pages = Array.from({ length: 64 }, (_, pfn) => data(pfn, 1));
  await writeImage(paths[0] ?? '', 64, [pages], { pageHashes: true });
  for (let n = 1; n <= count; n++) {
    pages[n] = data(n, 100 + n);
    await writeIncrement(paths[n] ?? '', paths[n - 1] ?? '', 64, pages, { pageHashes: true });
  }
  return paths;
}

test('an increment is as large as what changed, however large the domain is', async (t) => {
  const dir = tempDir(t);
  const sizes: number[] = [];
  for (const nrPfns of [64, 2 ** 31]) {
    const parent = join(dir, `full-${nrPfns}`);
    const rest: TestPage = { pfn: 63, pageClass: 'zero', type: 0, body: null };
    const full = await writeImage(parent, 64, [
      [...Array.from({ length: 63 }, (_, pfn) => data(pfn, 1)), rest],
    ]);
    const path = join(dir, `increment-${nrPfns}`);
    const options = { nrPfns, lanes: 1, consistency: 'suspend-point' } as const;
    const cpu = process.cpuUsage();
    const writer = await ImageWriter.create(path, { ...options, parent: { ...full, nrPfns } });
    writer.append(0, BigUint64Array.of(5n | (1n << 56n)), Buffer.alloc(4096, 9));
    writer.append(0, BigUint64Array.of(BigInt(nrPfns - 1) | (4n << 56n) | (15n << 60n)), Buffer.alloc(0));
    sizes.push((await writer.commit(manifestFor(nrPfns, writer.counts()))).storedBytes);
    assert.ok(process.cpuUsage(cpu).user < 500_000);
  }
  assert.deepEqual(sizes[0], sizes[1]);
  assert.ok((sizes[0] ?? 0) <= 10 * 4096, `${sizes[0]} bytes`);
});

test('a full map in between: what came before it is not read', async (t) => {
  const dir = tempDir(t);
  const paths = await plainChain(dir, 36);
  const last = paths.at(-1) ?? '';
  const reader = await ImageReader.open(last, { lanes: 1 });
  assert.equal(reader.readPages([20]).at(0), 120);
  assert.equal(reader.header.sequence, 36);
  reader.close();
  const whole = await ImageReader.open(paths[32] ?? '', { lanes: 1 });
  whole.close();
  assert.equal(whole.files.length, 33);
});

test('a parent that is missing or another image is named, and nothing is read of it', async (t) => {
  const dir = tempDir(t);
  const [full = '', first = '', second = ''] = await plainChain(dir, 2);
  const codeOf = async () => {
    const verified = await verifyImage(second).then(({ findings }) => findings[0]?.path);
    return ImageReader.open(second, { lanes: 1 }).then(
      (reader) => (reader.close(), { code: 'whole', message: '', verified }),
      (thrown: unknown) => {
        const { code, message } = thrown as { code: string; message: string };
        return { code, message, verified };
      },
    );
  };
  assert.equal((await codeOf()).code, 'whole');
  const aside = join(dir, 'aside');
  for (const [gone, other] of [
    [first, full],
    [full, first],
  ] as const) {
    renameSync(gone, aside);
    const missing = await codeOf();
    assert.equal(missing.code, 'IMAGE_NOT_FOUND');
    assert.equal(missing.verified, gone);
    assert.ok(missing.message.includes(gone), missing.message);
    copyFileSync(other, gone);
    const wrong = await codeOf();
    assert.equal(wrong.code, 'IMAGE_INCOMPATIBLE');
    assert.equal(wrong.verified, gone);
    assert.ok(wrong.message.includes(gone), wrong.message);
    renameSync(aside, gone);
  }
  // Moved together they are a chain again.
  mkdirSync(aside);
  for (const path of [full, first, second]) renameSync(path, join(aside, path.slice(dir.length + 1)));
  const moved = await ImageReader.open(join(aside, 'point-2'), { lanes: 1 });
  moved.close();
  assert.equal(nativeImage().openImages(), 0);
});

test('a page that was not looked at is not taken for one that did not change', async (t) => {
  const dir = tempDir(t);
  const [full = ''] = await plainChain(dir, 0);
  const seen = Array.from({ length: 63 }, (_, pfn) => data(pfn, 1));
  const options = { pageHashes: true, complete: true };
  await assert.rejects(writeIncrement(join(dir, 'short'), full, 64, seen, options), {
    code: 'ACCOUNTING_MISMATCH',
  });
  const done = await writeIncrement(join(dir, 'all'), full, 64, [...seen, data(63, 1)], options);
  const reader = await ImageReader.open(done.path, { lanes: 1 });
  reader.close();
  assert.equal(reader.manifest.pages.sameAsParent, 64);
});

test('an increment in another folder than its parent is refused', async (t) => {
  const dir = tempDir(t);
  const [full = ''] = await plainChain(dir, 0);
  mkdirSync(join(dir, 'other'));
  await assert.rejects(writeIncrement(join(dir, 'other', 'x'), full, 64, [data(1, 3)]), {
    code: 'OUTPUT_INVALID',
  });
});

test('page hashes are optional: without them the parent is read', async (t) => {
  const dir = tempDir(t);
  const pages = Array.from({ length: 300 }, (_, pfn) => data(pfn, pfn));
  await writeImage(join(dir, 'full'), 300, [pages]);
  pages[7] = data(7, 99);
  const done = await writeIncrement(join(dir, 'next'), join(dir, 'full'), 300, pages);
  assert.ok(statSync(done.path).size < 12 * 4096);
  const reader = await ImageReader.open(done.path, { lanes: 1 });
  assert.deepEqual(reader.manifest.pages, { ...countPages([data(7, 99)]), sameAsParent: 299 });
  reader.close();
});

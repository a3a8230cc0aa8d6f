/** Random chains written once more: as one image, as raw memory, as a core dump. Each holds what the chain's images hold. */
import assert from 'node:assert/strict';
import { mkdirSync, openSync, readSync, closeSync, statSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { convertToImage } from '../../src/convert/to_image.js';
import { digestImage } from '../../src/digest/digest.js';
import type { DomainState } from '../../src/domain/state.js';
import { writeImageCore } from '../../src/dump/image_core.js';
import { writeImagePages } from '../../src/dump/image_pages.js';
import { OutputFile } from '../../src/image/output_file.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { closeWorkers, laneCount } from '../../src/worker/pool.js';
import { writeIncrement } from '../support/chains.js';
import { contentRootOf } from '../support/content_root.js';
import { CoreDump } from '../support/elf_core.js';
import { contentsOf } from '../support/image_contents.js';
import {
  countPages,
  page,
  pvhDomain,
  random,
  tempDir,
  writeImage,
  type TestPage,
} from '../support/images.js';

after(closeWorkers);

const nothing = Buffer.alloc(4096);
const hasContent = ({ pageClass }: Pick<TestPage, 'pageClass'>): boolean =>
  ['data', 'zero', 'table'].includes(pageClass);

/** A chain of three; the path of its last image, and what it holds. */
async function chain(dir: string, next: (below: number) => number): Promise<[string, TestPage[]]> {
  let pages = Array.from({ length: 1 + next(1500) }, (_, pfn) => page(pfn, next));
  let last = join(dir, 'image-0');
  await writeImage(last, pages.length, [pages], { pageHashes: next(2) === 0 }, { domain: pvhDomain });
  for (let n = 1; n <= 2; n++) {
    const nrPfns = next(3) === 0 ? Math.max(1, pages.length + next(100) - 50) : pages.length;
    const before = pages;
    pages = Array.from({ length: nrPfns }, (_, pfn) =>
      next(8) === 0 ? page(pfn, next) : (before[pfn] ?? page(pfn, next)),
    );
    const path = join(dir, `image-${n}`);
    await writeIncrement(path, last, nrPfns, pages, { pageHashes: next(2) === 0, fullMap: next(3) === 0 });
    last = path;
  }
  return [last, pages];
}

async function withReader<T>(path: string, use: (reader: ImageReader) => Promise<T>): Promise<T> {
  const reader = await ImageReader.open(path, { lanes: laneCount });
  try {
    return await use(reader);
  } finally {
    reader.close();
  }
}

async function written(path: string, fill: (output: OutputFile) => Promise<void>): Promise<number> {
  const output = OutputFile.create(path, false);
  try {
    await fill(output);
    output.publish();
    return output.bytes;
  } finally {
    output.close();
  }
}

/** With the chunks as they are stored, or coded anew. */
async function checkWhole(
  from: string,
  dir: string,
  pages: readonly TestPage[],
  anew: boolean,
): Promise<void> {
  const alone = join(dir, anew ? 'anew' : 'alone');
  mkdirSync(alone);
  const whole = join(alone, 'whole');
  const options = anew ? ({ compression: 'lz4' } as const) : {};
  const done = await withReader(from, (reader) => convertToImage(reader, whole, options));
  assert.deepEqual([done.sequence, done.contentRoot], [0, contentRootOf(pages)]);
  const contents = await contentsOf(whole);
  assert.deepEqual(
    contents,
    pages.map(({ pageClass, type, body }) => ({ pageClass, type, body: body ?? nothing })),
  );
  assert.deepEqual((await verifyImage(whole)).findings, []);
  assert.equal((await digestImage(whole)).digest, (await digestImage(from)).digest);
  await withReader(whole, ({ counts, files }) => {
    assert.deepEqual([counts, files.length], [countPages(pages), 1]);
    return Promise.resolve();
  });
}

async function checkRaw(from: string, dir: string, pages: readonly TestPage[]): Promise<void> {
  const path = join(dir, 'raw');
  const bytes = await withReader(from, (reader) =>
    written(path, (output) => writeImagePages(reader, output, { packed: false, leafPfns: [] }, {})),
  );
  assert.deepEqual([bytes, statSync(path).size], [pages.length * 4096, pages.length * 4096]);
  const file = openSync(path, 'r');
  const found = Buffer.alloc(bytes);
  readSync(file, found);
  closeSync(file);
  for (const { pfn, body } of pages)
    assert.ok(found.subarray(pfn * 4096, (pfn + 1) * 4096).equals(body ?? nothing), `pfn ${pfn}`);
  const stored = pages.filter(({ body }) => body?.some((byte) => byte !== 0)).length;
  assert.ok(statSync(path).blocks * 512 <= stored * 4096 + 65_536, 'zeroes are holes');
}

/** A core of such a guest, which has no registers: they are given, as the engine reads them. */
async function checkCore(from: string, dir: string, pages: readonly TestPage[]): Promise<void> {
  const path = join(dir, 'core');
  const write = (state: Partial<DomainState>): Promise<number> =>
    withReader(from, (reader) => {
      Object.assign(reader.manifest.state, state);
      return written(path, (output) => writeImageCore(reader, output, {}));
    });
  await assert.rejects(write({}), { code: 'IMAGE_INCOMPATIBLE', message: /no registers/u });
  const record = Buffer.alloc(8 + 1032);
  record.writeUInt16LE(2, 0);
  record.writeUInt32LE(1032, 4);
  await assert.rejects(write({ hvmContext: record }), { code: 'IMAGE_INCOMPATIBLE', message: /32 bytes/u });
  await write({ hvmContext: record, sharedInfo: Buffer.alloc(0) });
  const core = new CoreDump(path);
  try {
    const kept = pages.filter(hasContent);
    const table = core.read('.xen_pfn');
    const pfns = Array.from({ length: table.length / 8 }, (_, i) => Number(table.readBigUInt64LE(i * 8)));
    assert.deepEqual(
      pfns,
      kept.map(({ pfn }) => pfn),
    );
    const found = core.read('.xen_pages');
    assert.equal(found.length, kept.length * 4096);
    for (const [i, { body, pfn }] of kept.entries())
      assert.ok(found.subarray(i * 4096, (i + 1) * 4096).equals(body ?? nothing), `pfn ${pfn}`);
  } finally {
    core.close();
  }
}

test('a chain as one image, raw and as a core', async (t) => {
  const folder = tempDir(t);
  let runs = 0;
  const oneOf = async (seed: number): Promise<void> => {
    const dir = join(folder, String(runs++));
    mkdirSync(dir);
    const [from, pages] = await chain(dir, random(seed));
    await checkWhole(from, dir, pages, false);
    await checkWhole(from, dir, pages, true);
    await checkRaw(from, dir, pages);
    await checkCore(from, dir, pages);
  };
  await fc.assert(fc.asyncProperty(fc.nat(), oneOf), { numRuns: 25, includeErrorInReport: true });
});

test('what cannot be read leaves no file', async (t) => {
  const dir = tempDir(t);
  const [from] = await chain(dir, random(5));
  await withReader(from, async (reader) => {
    const [whole, raw] = [join(dir, 'whole'), join(dir, 'raw')];
    const signal = AbortSignal.abort();
    await assert.rejects(convertToImage(reader, whole, { signal }), { code: 'CANCELLED' });
    const cancelled = written(raw, (output) =>
      writeImagePages(reader, output, { packed: false, leafPfns: [] }, { signal }),
    );
    await assert.rejects(cancelled, { code: 'CANCELLED' });
    for (const path of [whole, raw]) assert.throws(() => statSync(path), { code: 'ENOENT' });
  });
  renameSync(join(dir, 'image-1'), join(dir, 'away'));
  await assert.rejects(
    withReader(from, (reader) => convertToImage(reader, join(dir, 'whole'))),
    /image-1/u,
  );
});

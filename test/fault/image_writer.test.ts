import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
  chmodSync,
  chownSync,
} from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { asDormouseError } from '../../src/errors.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter } from '../../src/image/writer.js';
import {
  append,
  body,
  countPages,
  manifestFor,
  page,
  random,
  tempDir,
  type TestPage,
} from '../support/images.js';

const options = { nrPfns: 4, lanes: 2, consistency: 'suspend-point' } as const;
const fourPages: TestPage[] = [0, 1, 2, 3].map((pfn) => ({ pfn, pageClass: 'zero', type: 0, body: null }));
const child = new URL('../support/image_child.js', import.meta.url).pathname;

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (thrown) {
    return asDormouseError(thrown).code;
  }
}

test('an output that must not be written to is refused before anything is made', async (t) => {
  const dir = tempDir(t);
  const at = (name: string) => join(dir, name);
  writeFileSync(at('file'), 'mine');
  mkdirSync(at('folder'));
  symlinkSync('file', at('link'));
  symlinkSync('nowhere', at('dangling'));
  assert.equal(spawnSync('mkfifo', [at('pipe')]).status, 0);
  const before = readdirSync(dir);
  const cases = {
    file: 'OUTPUT_EXISTS',
    folder: 'OUTPUT_INVALID',
    'folder/': 'OUTPUT_INVALID',
    link: 'OUTPUT_INVALID',
    dangling: 'OUTPUT_INVALID',
    pipe: 'OUTPUT_INVALID',
    'missing/image': 'OUTPUT_INVALID',
    'file/image': 'OUTPUT_INVALID',
    '.': 'OUTPUT_INVALID',
    'nul\0byte': 'OUTPUT_INVALID',
    ['long'.repeat(100)]: 'OUTPUT_INVALID',
  };
  for (const [name, code] of Object.entries(cases))
    assert.equal(await codeOf(() => ImageWriter.create(`${dir}/${name}`, options)), code, name);
  assert.deepEqual(readdirSync(dir), before);
  assert.equal(readFileSync(at('file'), 'utf8'), 'mine');
  assert.equal(nativeImage().openImages(), 0);
});

test('a folder that may not be written to is refused', async (t) => {
  const dir = tempDir(t);
  const [root, nobody] = [0, 65_534];
  const isRoot = process.geteuid?.() === root;
  if (isRoot) chownSync(dir, nobody, nobody);
  chmodSync(dir, 0o500);
  // Root may write everywhere.
  if (isRoot) process.seteuid?.(nobody);
  try {
    assert.equal(await codeOf(() => ImageWriter.create(join(dir, 'image'), options)), 'OUTPUT_INVALID');
  } finally {
    if (isRoot) process.seteuid?.(root);
  }
});

test('a file that appears meanwhile is not replaced', async (t) => {
  const path = join(tempDir(t), 'image');
  const writer = await ImageWriter.create(path, options);
  append(writer, 0, fourPages);
  writeFileSync(path, 'mine');
  assert.equal(await codeOf(() => writer.commit(manifestFor(4, writer.counts()))), 'OUTPUT_EXISTS');
  assert.equal(readFileSync(path, 'utf8'), 'mine');
  assert.equal(nativeImage().openImages(), 0);
});

test('an image that does not account for every page is not committed', async (t) => {
  const dir = tempDir(t);
  const missing = await ImageWriter.create(join(dir, 'missing'), options);
  append(missing, 0, [...fourPages.slice(0, 2), ...fourPages.slice(3)]);
  await assert.rejects(missing.commit(manifestFor(4, missing.counts())), {
    code: 'ACCOUNTING_MISMATCH',
    place: { pfn: 2 },
  });
  const miscounted = await ImageWriter.create(join(dir, 'miscounted'), options);
  append(miscounted, 0, fourPages);
  const wrong = { ...miscounted.counts(), zero: 3, data: 1 };
  assert.equal(await codeOf(() => miscounted.commit(manifestFor(4, wrong))), 'ACCOUNTING_MISMATCH');
  assert.deepEqual(readdirSync(dir), []);
  assert.equal(nativeImage().openImages(), 0);
});

test('pages that cannot be are refused', async (t) => {
  const dir = tempDir(t);
  const cases: [string, TestPage, number][] = [
    ['beyond nrPfns', { pfn: 4, pageClass: 'zero', type: 0, body: null }, 0],
    ['table without level', { pfn: 0, pageClass: 'table', type: 0, body: body(random(1)) }, 1],
    ['data of a table type', { pfn: 0, pageClass: 'data', type: 4, body: body(random(1)) }, 1],
    ['noFrame of another type', { pfn: 0, pageClass: 'noFrame', type: 0, body: null }, 0],
    ['sameAsParent without parent', { pfn: 0, pageClass: 'sameAsParent', type: 0, body: null }, 0],
  ];
  for (const [what, bad] of cases) {
    const writer = await ImageWriter.create(join(dir, 'image'), options);
    assert.equal(await codeOf(() => append(writer, 0, [bad])), 'ACCOUNTING_MISMATCH', what);
    assert.equal(
      await codeOf(() => append(writer, 0, fourPages)),
      'ACCOUNTING_MISMATCH',
      'and stays refused',
    );
    await writer.abandon();
    await writer.abandon();
  }
  const writer = await ImageWriter.create(join(dir, 'image'), options);
  const bodies = () => writer.append(0, BigUint64Array.of(0n | (2n << 56n)), Buffer.alloc(4096));
  assert.equal(await codeOf(bodies), 'ACCOUNTING_MISMATCH', 'a body too many');
  await writer.abandon();
  assert.deepEqual(readdirSync(dir), []);
});

/** About 11 MiB that do not compress: several segments in two lanes, and a tail. */
function* bigAppends(nrPfns: number): Generator<TestPage[]> {
  for (let pfn = 0; pfn < nrPfns; pfn += 64)
    yield Array.from({ length: Math.min(64, nrPfns - pfn) }, (_, i) => {
      return { pfn: pfn + i, pageClass: 'data', type: 0, body: randomBytes(4096) };
    });
}

async function writeWithFault(path: string, nth: number, errno: number, forEver: boolean): Promise<string> {
  const nrPfns = 2800;
  // By turns as an unnamed file and as a hidden one.
  const writer = await ImageWriter.create(path, { ...options, nrPfns, unnamedFile: forEver });
  nativeImage().failCall(writer.handle, nth, errno, forEver);
  return codeOf(async () => {
    try {
      let lane = 0;
      for (const pages of bigAppends(nrPfns)) append(writer, lane++ % 2, pages);
      await writer.commit(manifestFor(nrPfns, writer.counts()));
    } finally {
      await writer.abandon();
    }
  });
}

for (const [name, errno, code] of [
  ['a full disk', constants.errno.ENOSPC, 'NO_SPACE'],
  ['a failing disk', constants.errno.EIO, 'IMAGE_WRITE_FAILED'],
] as const)
  test(`${name}, at each system call in turn, once and for ever, leaves nothing`, async (t) => {
    const dir = tempDir(t);
    const path = join(dir, 'image');
    for (const forEver of [false, true]) {
      let nth = 1;
      let found: string;
      while ((found = await writeWithFault(path, nth, errno, forEver)) !== 'done') {
        assert.equal(found, code, `call ${nth}`);
        assert.deepEqual(readdirSync(dir), [], `call ${nth}`);
        assert.equal(nativeImage().openImages(), 0);
        assert.ok(nth++ < 50);
      }
      // Segments of both lanes, tail, truncate, fsync, link, fsync of the folder.
      assert.ok(nth > 8, `only ${nth - 1} calls were seen to fail`);
      (await ImageReader.open(path, { lanes: 1 })).close();
      assert.equal(spawnSync('rm', [path]).status, 0);
    }
  });

/** The child writes an image of 2800 incompressible pages and prints the code it ended with. */
function runChild(shell: string, path: string) {
  return spawnSync('sh', ['-c', `${shell} exec "$0" "$@"`, process.execPath, child, 'write', path], {
    encoding: 'utf8',
    timeout: 30_000,
  });
}

test('a file size limit mid-way gives NO_SPACE and leaves nothing', (t) => {
  const dir = tempDir(t);
  const run = runChild('ulimit -f 12000;', join(dir, 'image'));
  assert.match(run.stdout, /^NO_SPACE\n/, run.stderr);
  assert.deepEqual(readdirSync(dir), []);
  assert.match(runChild('', join(dir, 'image')).stdout, /^done\n/);
});

function mountTmpfs(t: TestContext, bytes: number): string | null {
  if (process.getuid?.() !== 0) return null;
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-mount-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', dir]).status === 0;
  t.after(() => {
    if (mounted) spawnSync('umount', [dir]);
    rmdirSync(dir);
  });
  return mounted ? dir : null;
}

test('a real disk that fills up mid-way gives NO_SPACE and gives everything back', async (t) => {
  const dir = mountTmpfs(t, 6 << 20);
  if (dir === null) {
    t.skip('mounting a small tmpfs needs root');
    return;
  }
  const run = runChild('', join(dir, 'image'));
  assert.match(run.stdout, /^NO_SPACE\n/, run.stderr);
  assert.deepEqual(readdirSync(dir), []);
  writeFileSync(join(dir, 'filler'), Buffer.alloc(5 << 20));
  const writer = await ImageWriter.create(join(dir, 'small'), options);
  append(writer, 0, fourPages);
  await writer.commit(manifestFor(4, writer.counts()));
  (await ImageReader.open(join(dir, 'small'), { lanes: 1 })).close();
});

test('kill -9 while it is written leaves no file and no space taken', async (t) => {
  const dir = tempDir(t);
  const process_ = spawn(process.execPath, [child, 'hang', join(dir, 'image')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [said] = (await once(process_.stdout, 'data')) as [Buffer];
  assert.match(said.toString(), /half way/);
  assert.deepEqual(readdirSync(dir), []);
  process_.kill('SIGKILL');
  await once(process_, 'exit');
  assert.deepEqual(readdirSync(dir), []);
});

test('several threads append at once', async (t) => {
  const path = join(tempDir(t), 'image');
  const nrPfns = 6000;
  const lanes = 3;
  const writer = await ImageWriter.create(path, { nrPfns, lanes, consistency: 'paused' });
  const workers = Array.from(
    { length: lanes },
    (_, lane) => new Worker(child, { workerData: { handle: writer.handle, lane, lanes, nrPfns } }),
  );
  const codes = await Promise.all(workers.map(async (worker) => (await once(worker, 'exit'))[0] as number));
  assert.deepEqual(codes, [0, 0, 0]);
  const expected = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, random(pfn)));
  assert.deepEqual(writer.counts(), countPages(expected));
  await writer.commit(manifestFor(nrPfns, writer.counts(), { consistency: 'paused' }));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const reader = await ImageReader.open(path, { lanes: 1 });
  t.after(() => reader.close());
  const found = reader.readPages(expected.map((p) => p.pfn));
  for (const p of expected)
    assert.ok(
      found.subarray(p.pfn * 4096, (p.pfn + 1) * 4096).equals(p.body ?? Buffer.alloc(4096)),
      `pfn ${p.pfn}`,
    );
});

test('what was allocated ahead is given back on commit, and for a small image nothing is', async (t) => {
  for (const nrPfns of [4, 2800]) {
    const path = join(tempDir(t), 'image');
    const writer = await ImageWriter.create(path, { ...options, nrPfns });
    for (const pages of bigAppends(nrPfns)) append(writer, 0, pages);
    const { storedBytes } = await writer.commit(manifestFor(nrPfns, writer.counts()));
    const stat = statSync(path);
    assert.equal(stat.size, storedBytes);
    assert.ok(stat.blocks * 512 <= storedBytes + (1 << 20), `${stat.blocks * 512} bytes on disk`);
  }
});

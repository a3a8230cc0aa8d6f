/** No native function ends the process, whatever it is called with: each call is made in one process, which must live. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import type { DigestHandle, LiveHandle, MemoryHandle, ReaderHandle, WriterHandle } from '../../src/handle.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter } from '../../src/image/writer.js';
import { descriptor, pageBytes } from '../../src/pfn/page_words.js';
import { steps } from '../../src/worker/steps.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

const child = join(packageRoot, 'dist/test/support/native_calls_child.js');
/** What the children may map: node's own reservations, and little beyond. */
const addressSpaceKib = 16 << 20;
const calls = 1600;

function run(t: TestContext, script: string, ...args: string[]): string {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-native-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const limited = `ulimit -v ${addressSpaceKib}; exec "$0" "$@"`;
  const done = spawnSync('bash', ['-c', limited, process.execPath, script, dir, ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  assert.equal(done.signal ?? done.status, 0, `seed ${args[0] ?? ''}: ${done.stderr.slice(-2000)}`);
  return done.stdout;
}

interface Outcome {
  readonly functions: readonly string[];
  readonly tally: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

for (const seed of [1, 2])
  test(`junk among right arguments, seed ${seed}: an answer or an error of the list`, (t) => {
    const { functions, tally } = JSON.parse(run(t, child, String(seed), String(calls))) as Outcome;
    assert.ok(functions.length > 100, `only ${functions.length} functions`);
    const called = functions.filter((name) => tally[name] !== undefined);
    assert.ok(
      called.length > functions.length - 8,
      `only ${called.length} of ${functions.length} were called`,
    );
    const sum = (name: string): number =>
      Object.values(tally).reduce((total, of) => total + (of[name] ?? 0), 0);
    assert.ok(sum('answer') > calls / 10, `only ${sum('answer')} calls were answered`);
    assert.ok(sum('INTERNAL') > calls / 10, `only ${sum('INTERNAL')} calls were refused`);
  });

test('memory that cannot be had is NO_MEMORY, and the process goes on', (t) => {
  const script = `
    import { steps } from ${JSON.stringify(join(packageRoot, 'dist/src/worker/steps.js'))};
    const huge = 2 ** 32;
    for (const call of ['digestCreate', 'trackerCreate', 'liveCreate'])
      try {
        steps()[call](huge, true, 1);
        console.log(call, 'was given');
      } catch ({ code }) {
        console.log(call, code);
      }
    console.log(steps().openObjects().digests);`;
  const limited = `ulimit -v ${addressSpaceKib}; exec "$0" "$@"`;
  const args = ['-c', limited, process.execPath, '--input-type=module', '-e', script];
  const done = spawnSync('bash', args, { encoding: 'utf8' });
  assert.equal(done.signal ?? done.status, 0, done.stderr);
  const none = ['digestCreate', 'trackerCreate', 'liveCreate'].map((call) => `${call} NO_MEMORY\n`);
  assert.equal(done.stdout, `${none.join('')}0\n`);
  t.diagnostic(done.stdout);
});

const internal = (text: RegExp): object => ({ code: 'INTERNAL', message: text });

test('a lane, a chunk, a handle that is not there, or of another kind, is said plainly', async (t) => {
  const path = join(tempDir(t), 'small.dormouse');
  const next = random(3);
  await writeImage(path, 8, [Array.from({ length: 8 }, (_, pfn) => page(pfn, next))]);
  const reader = await ImageReader.open(path, { lanes: 2 });
  const { handle, nrChunks } = reader;
  const digest = steps().digestCreate(8);
  const live = steps().liveCreate(8, false, 1);
  const check = (of: ReaderHandle, lane: number, first: number, count: number) =>
    steps().digestImageStep(of, digest, lane, first, count);
  check(handle, 0, 0, nrChunks);
  assert.throws(() => check(handle, 50_000, 0, 1), internal(/lane 50000 of 2/u));
  assert.throws(() => check(handle, 0, 1_000_000, 1), internal(/1 chunks from 1000000 on/u));
  assert.throws(() => check(handle, 0, 0, 2 ** 32 - 1), internal(/chunks from 0 on/u));
  assert.throws(() => nativeImage().readChunk(handle, 2, 0), internal(/lane 2 of 2/u));
  assert.throws(() => nativeImage().checkChunk(handle, 0, 1_000_000), internal(/chunks/u));
  assert.throws(() => check(digest as unknown as ReaderHandle, 0, 0, 1), internal(/no handle of a reader/u));
  for (const wrong of [0, 1, handle + 1, -1, 0.5, NaN, 2 ** 60])
    assert.throws(() => check(wrong as ReaderHandle, 0, 0, 1), { code: 'INTERNAL' });
  const memory = digest as unknown as MemoryHandle;
  const writer = live as unknown as WriterHandle;
  assert.throws(() => steps().saveStep(memory, writer, 0, 0, 1), internal(/no handle of a memory/u));
  assert.throws(() => steps().liveRelease(digest as unknown as LiveHandle), internal(/live pass/u));
  assert.equal(steps().digestRelease(digest), true);
  assert.equal(steps().digestRelease(digest), false, 'once more: it is closed already');
  assert.throws(() => steps().digestFinish(digest), internal(/the digest is closed/u));
  assert.throws(
    () => steps().digestRelease((digest + 1) as DigestHandle),
    internal(/no handle of a digest/u),
  );
  steps().liveRelease(live);
  reader.close();
  assert.throws(() => nativeImage().checkChunk(handle, 0, 0), internal(/the reader is closed/u));
});

test('a lane that is at work, or a writer that ends, is not used meanwhile', async (t) => {
  const path = join(tempDir(t), 'small.dormouse');
  const writer = await ImageWriter.create(path, { nrPfns: 1, lanes: 2, consistency: 'suspend-point' });
  const one = [new BigUint64Array([descriptor(0, 1, 0)]), Buffer.alloc(pageBytes, 1)] as const;
  writer.append(1, ...one);
  const ending = nativeImage().finish(writer.handle);
  // However long ago the other thread was done: until its end is told here, it is not.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  assert.throws(() => nativeImage().append(writer.handle, 1, ...one), internal(/another thread is at work/u));
  await ending;
  await writer.abandon();
});

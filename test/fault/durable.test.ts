/** What is asked of the kernel for an image, seen from between the process and its C library. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { verifyImage } from '../../src/image/verify.js';
import { tempDir } from '../support/images.js';

const pathOf = (name: string): string => new URL(`../support/${name}.js`, import.meta.url).pathname;

interface Ended {
  readonly printed: string;
  readonly calls: string[];
  /** Of the folder that the image was to be in. */
  readonly names: string[];
  readonly image: string;
}

/** `child` is given a path, of an image to write or of a folder to be a shelf. */
function write(t: TestContext, env: Readonly<Record<string, string>> = {}, child = 'durable_child'): Ended {
  const [tools, dir] = [tempDir(t), tempDir(t)];
  const [shim, log] = [join(tools, 'shim.so'), join(tools, 'log')];
  const image = child === 'durable_child' ? join(dir, 'image') : dir;
  const source = join(packageRoot, 'test/support/file_calls.c');
  const compiled = spawnSync('gcc', ['-shared', '-fPIC', '-O1', '-o', shim, source, '-ldl'], {
    encoding: 'utf8',
  });
  assert.equal(compiled.status, 0, compiled.stderr);
  const ran = spawnSync(process.execPath, [pathOf(child), image], {
    env: { ...process.env, ...env, LD_PRELOAD: shim, FILE_CALLS_LOG: log },
    encoding: 'utf8',
  });
  const calls = existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : [];
  return { printed: ran.stdout, calls, names: readdirSync(dir), image };
}

test('an image is on disk before it has its name, and then its name is', (t) => {
  const { printed, calls, names } = write(t);
  assert.equal(printed, 'done');
  const writes = calls.filter((call) => call === 'write').length;
  assert.ok(writes >= 5, `${writes} writes`);
  assert.deepEqual(calls.filter((call) => call !== 'allocate').slice(writes), [
    'sync file',
    'link',
    'sync folder',
  ]);
  assert.deepEqual(names, ['image']);
});

for (const failing of ['sync file', 'sync folder'])
  test(`where "${failing}" fails there is no image`, (t) => {
    const { printed, calls, names } = write(t, { FILE_CALLS_FAIL: failing });
    assert.equal(printed, 'IMAGE_WRITE_FAILED');
    assert.equal(calls.includes('link'), failing === 'sync folder');
    assert.deepEqual(names, []);
  });

test('where two lanes at once are refused direct I/O the image is written without', async (t) => {
  const { printed, calls, image } = write(t, { FILE_CALLS_NO_DIRECT: '1' });
  if (!calls.includes('refused')) {
    t.skip('this file system has no direct I/O');
    return;
  }
  assert.equal(printed, 'done');
  assert.deepEqual((await verifyImage(image)).findings, []);
});

test('of a small image only the sync waits for the disk, which it did not reach before', (t) => {
  const { printed, calls } = write(t, { FILE_CALLS_NO_DIRECT: '1', DURABLE_PAGES: '20' });
  assert.equal(printed, 'done');
  assert.ok(!calls.includes('refused') && !calls.includes('allocate'), calls.join());
  assert.deepEqual(calls.slice(-3), ['sync file', 'link', 'sync folder']);
});

test('what is put on a shelf is on disk before it has its name, and then its name is; and that it went', (t) => {
  const { printed, calls, names } = write(t, {}, 'durable_shelf_child');
  assert.equal(printed, 'done');
  // The last is of the thing that was deleted.
  assert.deepEqual(calls, ['sync file', 'link', 'sync folder', 'sync folder']);
  assert.deepEqual(names, []);
});

for (const failing of ['sync file', 'sync folder'])
  test(`where "${failing}" fails a shelf says so`, (t) => {
    const { printed, calls } = write(t, { FILE_CALLS_FAIL: failing }, 'durable_shelf_child');
    assert.equal(printed, 'IMAGE_WRITE_FAILED');
    assert.equal(calls.includes('link'), failing === 'sync folder');
  });

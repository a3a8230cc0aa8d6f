/** A folder that others may write in: what they put under a name of ours is never taken for our file. */
import assert from 'node:assert/strict';
import {
  closeSync,
  fstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { test } from 'node:test';
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter } from '../../src/image/writer.js';
import { withImageOf } from '../../src/restore/image_of_file.js';
import { append, manifestFor, tempDir, type TestPage } from '../support/images.js';
import { fileOf, pvParts } from '../support/xen_stream.js';

const options = { nrPfns: 4, lanes: 1, consistency: 'suspend-point' } as const;
const pages: TestPage[] = [0, 1, 2, 3].map((pfn) => ({ pfn, pageClass: 'zero', type: 0, body: null }));

async function commit(writer: ImageWriter) {
  append(writer, 0, pages);
  return writer.commit(manifestFor(options.nrPfns, writer.counts()));
}

test('the temporary image of an xl file never has a name in its folder', async (t) => {
  const dir = tempDir(t);
  const [xl, scratch] = [join(tempDir(t), 'guest.xl'), dir];
  writeFileSync(xl, fileOf(pvParts()));
  const seen: (string | null)[] = [];
  const watcher = watch(scratch, (_, name) => seen.push(name));
  t.after(() => watcher.close());
  const imageId = await withImageOf(xl, { scratchDir: scratch }, async ({ path, from }) => {
    assert.equal(from, 'xl');
    const reader = await ImageReader.open(path, { lanes: 1 });
    reader.close();
    return reader.imageId;
  });
  assert.match(imageId, /^[0-9a-f]{32}$/);
  await setTimeout(100);
  // Of an unnamed file the kernel tells by the number of its inode.
  assert.deepEqual(
    seen.filter((name) => !name?.startsWith('#')),
    [],
  );
});

test('a nameless image has no name where the file system has no unnamed files either, and is read by its path', async (t) => {
  const dir = tempDir(t);
  for (const unnamedFile of [true, false]) {
    const path = join(dir, 'image');
    const writer = await ImageWriter.create(path, { ...options, unnamedFile, nameless: true });
    assert.deepEqual(readdirSync(dir), []);
    // What has the name of its folder is nobody's concern.
    writeFileSync(path, 'mine');
    const done = await commit(writer);
    assert.deepEqual([readFileSync(path, 'utf8'), readdirSync(dir)], ['mine', ['image']]);
    const { descriptor } = done;
    assert.ok(descriptor !== null);
    assert.equal(fstatSync(descriptor).nlink, 0);
    const reader = await ImageReader.open(done.path, { lanes: 1 });
    assert.equal(reader.root, done.root);
    reader.close();
    closeSync(descriptor);
    rmSync(path);
  }
});

test('a file put in the place of the hidden one is neither given its name nor removed', async (t) => {
  const dir = tempDir(t);
  for (const end of ['commit', 'abandon'] as const) {
    const path = join(dir, end);
    const writer = await ImageWriter.create(path, { ...options, unnamedFile: false });
    const hidden = readdirSync(dir).find((name) => name.endsWith('.partial'));
    assert.ok(hidden !== undefined);
    renameSync(join(dir, hidden), join(tempDir(t), 'stolen'));
    writeFileSync(join(dir, hidden), 'mine');
    if (end === 'abandon') await writer.abandon();
    else {
      const { root } = await commit(writer);
      const reader = await ImageReader.open(path, { lanes: 1 });
      reader.close();
      assert.equal(reader.root, root);
    }
    assert.equal(readFileSync(join(dir, hidden), 'utf8'), 'mine');
    rmSync(join(dir, hidden));
  }
});

/**
 * The real watcher of the xen host, as far as it comes without Xen: how it reads a journal, and whether an image has its
 * name. Where it is not built there is nothing to test.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { savedLine } from '../../src/host/xen/leases.js';
import { noWatcher, watcherProgram } from '../support/built_xen.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

const options = { skip: noWatcher };
const uuid = '01234567-89ab-cdef-0123-456789abcdef';

/** Has it undo the journal of a process that is dead. */
function undo(
  t: TestContext,
  journal: string,
): { status: number | null; said: string; failed: string; left: string[] } {
  const dir = join(tempDir(t), 'run');
  mkdirSync(dir);
  writeFileSync(join(dir, '5.lock'), `${2 ** 22 + 1} 1 ${uuid} save\n`);
  writeFileSync(join(dir, '5.journal'), journal);
  const { status, stdout, stderr } = spawnSync(watcherProgram, ['undo', dir, '5'], {
    encoding: 'utf8',
  });
  return { status, said: stdout, failed: stderr, left: readdirSync(dir).sort() };
}

test('an image that is there decides; any other file, and none, does not', options, async (t) => {
  const dir = tempDir(t);
  const path = join(dir, '100%0A of\nweb1 %.dmi');
  const { imageId } = await writeImage(path, 1, [[page(0, random(1))]]);
  const journal = (of: string, at = path): string =>
    `suspend 0a1b\n${savedLine({ then: 'destroy', imageId: of, path: at })}\n`;
  const whole = `its image ${path} is whole\n`;
  assert.equal(undo(t, journal(imageId)).said, whole);
  assert.equal(undo(t, journal(imageId.replace(/./, (digit) => (digit === '0' ? '1' : '0')))).said, '');
  writeFileSync(path, 'short');
  assert.equal(undo(t, journal(imageId)).said, '');
  rmSync(path);
  assert.equal(undo(t, journal(imageId)).said, '');
});

test('what cannot be told or understood is not taken for undone', options, (t) => {
  const id = '0'.repeat(32);
  // Of the first the image is a regular file that the kernel fails to read.
  const journals = [
    `suspend 0a1b\nsaved destroy ${id} /proc/self/mem\n`,
    `saved keep ${id} /image\n`,
    `saved destroy ${id}\n`,
    `saved destroy ${id} image\n`,
    'teleport\n',
    'suspend\n',
  ];
  for (const journal of journals) {
    const { status, failed, left } = undo(t, journal);
    assert.equal(status, 1, journal);
    assert.match(failed, /cannot be told|not understood/, journal);
    assert.deepEqual(left, ['5.journal', '5.lock']);
  }
});

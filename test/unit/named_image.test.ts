/** Whether an image that decides about a domain has its name, as the embedded host looks at it; xen_undo.test.ts has the watcher's look. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { findImage } from '../../src/host/named_image.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

test('only what may be that image and cannot be read is unknown', async (t) => {
  const dir = tempDir(t);
  const at = (name: string): string => join(dir, name);
  const { imageId } = await writeImage(at('image'), 1, [[page(0, random(1))]]);
  execFileSync('mkfifo', [at('fifo')]);
  mkdirSync(at('folder'));
  symlinkSync('loop', at('loop'));
  const find = (path: string, id = imageId): string => findImage({ then: 'destroy', path, imageId: id });
  assert.equal(find(at('image')), 'there');
  assert.equal(find(at('image'), '0'.repeat(32)), 'absent');
  for (const name of ['fifo', 'folder', 'loop', 'image/below', 'none', '.'])
    assert.equal(find(at(name)), 'absent', name);
  assert.equal(find('/proc/self/mem'), 'unknown', 'a regular file that the kernel fails to read');
});

/** A parent whose stored page hashes are not those of its pages: a guest must not end on it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openParent } from '../../src/capture/parent_image.js';
import { nativeImage } from '../../src/image/native.js';
import { verifyImage } from '../../src/image/verify.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

test('stored hashes that lie are found when all of a parent is read', async (t) => {
  t.after(closeWorkers);
  const path = join(tempDir(t), 'parent.dmi');
  const next = random(5);
  const pages = Array.from({ length: 600 }, (_, pfn) => page(pfn, next));
  const api = nativeImage();
  const honest = api.writerPageHashes.bind(api);
  for (const lies of [false, true]) {
    api.writerPageHashes = (writer) => {
      const hashes = Buffer.from(honest(writer));
      if (lies) hashes.writeUInt8(hashes.readUInt8(hashes.length - 1) ^ 1, hashes.length - 1);
      return hashes;
    };
    await writeImage(lies ? `${path}.lies` : path, 600, [pages], { pageHashes: true });
  }
  api.writerPageHashes = honest;
  const whole = { signed: false, whole: true };
  (await openParent(path, whole)).close();
  await assert.rejects(openParent(`${path}.lies`, whole), { code: 'IMAGE_DAMAGED', message: /stored hash/ });
  assert.ok((await verifyImage(`${path}.lies`)).findings.length > 0);
});

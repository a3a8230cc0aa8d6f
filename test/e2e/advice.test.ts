import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { hostPaths } from '../../src/host/embedded/run_dir.js';
import { ImageReader } from '../../src/image/reader.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { writeIncrement } from '../support/chains.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { page, pvhDomain, random, tempDir, writeImage } from '../support/images.js';

test('no two guests have one uuid, and a paused one is told from one that can suspend', async (t) => {
  const host = await startTestHost(t);
  t.after(closeWorkers);
  const spec = guestSpec('a', { program: 'idle' }, { memoryMib: 4 });
  await host.create(spec, { paused: true });
  const twin = { ...spec, name: 'b', uuid: spec.uuid.toUpperCase() };
  await assert.rejects(host.create(twin, { paused: true }), { code: 'DOMAIN_EXISTS', message: /'a' has/u });
  const path = join(tempDir(t), 'a.dmi');
  await assert.rejects(checkpoint(host, 'a', path, { mode: 'cooperative' }), {
    code: 'DOMAIN_WRONG_STATE',
    advice: /^Unpause it first/u,
  });
});

test('advice names what has to be changed', async (t) => {
  const dir = tempDir(t);
  const [parent, child] = [join(dir, 'p.dmi'), join(dir, 'c.dmi')];
  const pages = Array.from({ length: 8 }, (_, pfn) => page(pfn, random(pfn + 1)));
  const { imageId } = await writeImage(parent, 8, [pages], {}, { domain: pvhDomain });
  await writeIncrement(child, parent, 8, [{ pfn: 0, pageClass: 'zero', type: 0, body: null }]);
  rmSync(parent);
  await writeImage(parent, 8, [pages], {}, { domain: pvhDomain });
  await assert.rejects(ImageReader.open(child, { lanes: 1 }), {
    code: 'IMAGE_INCOMPATIBLE',
    advice: new RegExp(`^Put image ${imageId} back there`, 'u'),
  });
  const before = process.env.DORMOUSE_RUN_DIR;
  process.env.DORMOUSE_RUN_DIR = '/proc/nope/run';
  t.after(() => {
    if (before === undefined) delete process.env.DORMOUSE_RUN_DIR;
    else process.env.DORMOUSE_RUN_DIR = before;
  });
  assert.throws(() => hostPaths('a'), { code: 'HOST_UNAVAILABLE', advice: /^Set DORMOUSE_RUN_DIR/u });
});

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../src/image/format.js';
import { inspectImage } from '../../src/image/inspect.js';
import { verifyImage } from '../../src/image/verify.js';
import { chunkCodecs } from '../support/chunk_codecs.js';
import { goldenFolder, goldenNames, record } from '../support/make_golden.js';

const images = readdirSync(goldenFolder).filter((name) => name.endsWith('.dormouse'));

test('the current format has its golden images', () => {
  for (const name of goldenNames(`${FORMAT_MAJOR}.${FORMAT_MINOR}`)) assert.ok(images.includes(name), name);
});

for (const name of images)
  test(`${name} reads as it was recorded`, async () => {
    const path = join(goldenFolder, name);
    assert.deepEqual(await record(path), JSON.parse(readFileSync(`${path}.json`, 'utf8')));
    assert.deepEqual((await verifyImage(path)).findings, []);
  });

test('between them they have a parent, a signature, a paused guest, deltas, and pages of both codecs', async () => {
  const records = await Promise.all(images.map((name) => record(join(goldenFolder, name))));
  assert.ok(records.some(({ ancestors }) => ancestors.includes('format-1.0.dormouse')));
  assert.ok(records.some(({ signer }) => signer !== null));
  assert.ok(records.some(({ consistency }) => consistency === 'paused'));
  const inspected = await Promise.all(images.map((name) => inspectImage(join(goldenFolder, name))));
  assert.ok(inspected.some(({ chunks }) => chunks.ofDeltas > 0));
  const codecs = new Set(
    images.flatMap((name) => chunkCodecs(join(goldenFolder, name))).map(({ codec }) => codec),
  );
  assert.deepEqual([...codecs].sort(), [0, 1]);
});

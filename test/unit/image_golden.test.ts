import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { test } from 'node:test';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../src/image/format.js';
import { verifyImage } from '../../src/image/verify.js';
import { goldenPath, record } from '../support/make_golden.js';

const versions = readdirSync(dirname(goldenPath('x'))).flatMap(
  (name) => /^format-(\d+\.\d+)\.dormouse$/.exec(name)?.[1] ?? [],
);

test('the current format has its golden image', () => {
  assert.ok(versions.includes(`${FORMAT_MAJOR}.${FORMAT_MINOR}`));
});

for (const version of versions)
  test(`the golden image of format ${version} reads as it was recorded`, async () => {
    const path = goldenPath(version);
    assert.deepEqual(await record(path), JSON.parse(readFileSync(`${path}.json`, 'utf8')));
    assert.deepEqual((await verifyImage(path)).findings, []);
  });

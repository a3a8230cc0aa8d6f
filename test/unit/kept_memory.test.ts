/** What a translated domain's kept mappings show, of frames that come and go at every look (test/support/kept_memory_model.cc). */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { tempDir } from '../support/images.js';

test('frames that come and go at any moment: a domain that stands still is read as it is', (t) => {
  const model = join(tempDir(t), 'model');
  const native = join(packageRoot, 'native');
  const sources = ['host/kept_memory.cc', 'host/hole_map.cc'].map((file) => join(native, file));
  const own = join(packageRoot, 'test/support/kept_memory_model.cc');
  execFileSync('g++', ['-O1', '-std=c++17', '-pthread', `-I${native}`, '-o', model, own, ...sources]);
  const first = Number(process.env.DORMOUSE_TEST_SEED ?? Math.floor(Math.random() * 1e9));
  const ran = spawnSync(model, [String(first), '100'], { encoding: 'utf8' });
  assert.equal(ran.status, 0, `from seed ${first}: ${ran.stdout}${ran.stderr}`);
});

/** What a translated domain's kept mappings show, of frames that come and go at every look (test/support/kept_memory_model.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test('frames that come and go at any moment: a domain that stands still is read as it is', (t) => {
  const first = Number(process.env.DORMOUSE_TEST_SEED ?? Math.floor(Math.random() * 1e9));
  const sources = ['host/kept_memory.cc', 'host/hole_map.cc'];
  const ran = runNativeProgram(t, 'kept_memory_model.cc', sources, [String(first), '100']);
  assert.equal(ran.status, 0, `from seed ${first}: ${ran.output}`);
});

/** When `--compression auto` compresses (test/support/compression_gain_table.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test('compressing is given up where it takes longer than writing what it saves, and tried again', (t) => {
  const ran = runNativeProgram(t, 'compression_gain_table.cc', []);
  assert.equal(ran.status, 0, ran.output);
});

/** What a pause on Xen is made of, and what becomes of it if a call in it fails (test/support/stopped_capture_checks.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test('a capture stops the domain for no more than that, and no fault leaves it stopped', (t) => {
  const ran = runNativeProgram(t, 'stopped_capture_checks.cc', ['host/xen/stopped_capture.cc']);
  assert.equal(ran.status, 0, ran.output);
});

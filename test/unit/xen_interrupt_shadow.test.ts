/** Pauses outside the one instruction after `sti` or `mov ss` (test/support/interrupt_shadow_checks.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test('a guest in the interrupt shadow is let go on until it has left it', (t) => {
  const ran = runNativeProgram(t, 'interrupt_shadow_checks.cc', ['host/xen/interrupt_shadow.cc']);
  assert.equal(ran.status, 0, ran.output);
});

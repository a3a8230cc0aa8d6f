/** The ring between a guest and xenstored at rest (test/support/xenstore_ring_checks.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test('nothing asked, half asked or on its way is told from a ring at rest', (t) => {
  const ran = runNativeProgram(t, 'xenstore_ring_checks.cc', ['host/xen/xenstore_ring.cc']);
  assert.equal(ran.status, 0, ran.output);
});

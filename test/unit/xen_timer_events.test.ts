/** Timers raised for a domain that goes back in place (test/support/timer_events_checks.cc). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runNativeProgram } from '../support/native_program.js';

test("each vCPU's timer is raised once, or none is where it is not known how", (t) => {
  const sources = ['host/xen/timer_events.cc', 'host/xen/event_pages.cc'];
  const ran = runNativeProgram(t, 'timer_events_checks.cc', sources);
  assert.equal(ran.status, 0, ran.output);
});

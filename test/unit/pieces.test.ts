import assert from 'node:assert/strict';
import { test } from 'node:test';
import { steps } from '../../src/worker/steps.js';
import { guestSpec, startTestHost } from '../support/hosts.js';

test('pieces of a domain cover all its pfns once, those of a fresh live pass too', async (t) => {
  const host = await startTestHost(t);
  const domid = await host.create(guestSpec('guest', undefined, { memoryMib: 64 }), { paused: true });
  const { nrPfns } = await host.geometry(domid);
  const lease = await host.acquire(domid, 'checkpoint');
  const memory = await host.openMemory(domid);
  const live = steps().liveCreate(nrPfns, false, 64);
  try {
    for (const pages of [64, 100, 2048, nrPfns + 1])
      for (const pieces of [
        steps().memoryPieces(memory.handle, nrPfns, pages),
        steps().livePieces(live, memory.handle, pages),
      ]) {
        let next = 0;
        for (const [first, count] of pieces) {
          assert.equal(first, next);
          assert.equal(first % 64, 0);
          assert.ok(count > 0 && count < pages + 64, `${count} of ${pages}`);
          next += count;
        }
        assert.equal(next, nrPfns);
      }
  } finally {
    steps().liveRelease(live);
    memory.close();
    await lease.release();
  }
});

/** A save that is cancelled when every page is written, but the image has not its name yet. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { plainHost } from '../support/plain_host.js';

test('a save cancelled after its last page leaves the guest running and no image', async (t) => {
  const host = await startTestHost(t, { memoryMib: 64 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-late-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  await host.create(guestSpec('guest'), { paused: false });
  const stop = new AbortController();
  // Asked once all pages are written, and before anything is committed.
  const plain = plainHost(host, {
    tracker: 'log-dirty',
    before: (operation) => {
      if (operation === 'noteEnding') stop.abort();
    },
  });
  await assert.rejects(save(plain, 'guest', join(dir, 'image'), { then: 'destroy', signal: stop.signal }), {
    code: 'CANCELLED',
  });
  assert.ok(stop.signal.aborted);
  assert.deepEqual(readdirSync(dir), []);
  assert.equal((await host.find('guest')).shutdown, null);
});

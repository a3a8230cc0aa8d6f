/** A live checkpoint that fails or is cancelled at any of its steps leaves the guest running and nothing behind. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { DormouseError } from '../../src/errors.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { plainHost, type TrackerKind } from '../support/plain_host.js';
import type { CheckpointMode } from '../../src/domain/checkpoint_mode.js';

const noObjects = {
  memories: 0,
  writers: 0,
  readers: 0,
  digests: 0,
  trackers: 0,
  livePasses: 0,
  rewinds: 0,
  diffs: 0,
  pageFiles: 0,
};

async function assertGivenBack(host: EmbeddedHost, what: string): Promise<void> {
  const info = await host.find('guest');
  assert.equal(info.paused, false, what);
  assert.equal(info.shutdown, null, what);
  const { trackers, leases } = await host.status();
  assert.deepEqual([trackers, leases.length], [0, 0], what);
  assert.deepEqual(steps().openObjects(), noObjects, what);
  const before = (await host.progress(info.domid)).steps[0] ?? 0;
  await until(`${what}: the guest runs`, 5000, async () => {
    return ((await host.progress(info.domid)).steps[0] ?? 0) > before;
  });
}

/** One checkpoint in which `act` comes before its nth operation; true if there was one. */
async function actAt(
  host: EmbeddedHost,
  image: string,
  [tracker, mode]: readonly [TrackerKind, CheckpointMode],
  n: number,
  act: (operation: string, cancel: () => void) => void,
): Promise<{ readonly reached: string | undefined; readonly error: unknown }> {
  const stop = new AbortController();
  let count = 0;
  let reached: string | undefined;
  const before = (operation: string): void => {
    if (count++ !== n) return;
    reached = operation;
    act(operation, () => stop.abort());
  };
  const plain = plainHost(host, { tracker, before });
  const error = await checkpoint(plain, 'guest', image, { mode, signal: stop.signal }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return { reached, error };
}

for (const tracker of ['log-dirty', 'content'] as const)
  for (const mode of ['light', 'cooperative'] as const)
    test(`${mode} by ${tracker}: a failure or a cancel at each step`, async (t) => {
      const host = await startTestHost(t, { memoryMib: 128 });
      const dir = mkdtempSync(join(tmpdir(), 'dormouse-live-'));
      t.after(async () => {
        await closeWorkers();
        rmSync(dir, { recursive: true, force: true });
      });
      await host.create(guestSpec('guest', { program: 'writer', rate: 2000 }), { paused: false });
      const image = join(dir, 'image');
      let operations = 0;
      for (const how of ['fail', 'cancel'] as const)
        for (let n = 0, more = true; more; n++) {
          const { reached, error } = await actAt(host, image, [tracker, mode], n, (operation, cancel) => {
            if (how === 'cancel') cancel();
            else throw new DormouseError('HOST_PROTOCOL', `injected into ${operation}`);
          });
          more = reached !== undefined;
          const what = `${how} at ${reached} (${n})`;
          if (how === 'fail' && more) {
            // Whether it is paused when all is done is only told.
            if (error === undefined) assert.equal(reached, 'info', what);
            else assert.equal((error as DormouseError).code, 'HOST_PROTOCOL', what);
            operations++;
          }
          if (error !== undefined) assert.deepEqual(readdirSync(dir), [], what);
          if (how === 'cancel' && error !== undefined)
            assert.equal((error as DormouseError).code, 'CANCELLED', what);
          if (!more) assert.equal(error, undefined, 'nothing was injected');
          rmSync(image, { force: true });
          await assertGivenBack(host, what);
        }
      assert.ok(operations >= 8, `${operations} operations were failed`);
    });

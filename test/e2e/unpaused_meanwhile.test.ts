/** A guest that was paused is saved, and its operator lets it go or pauses it in the middle: what is told is what is. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { Host } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { withCalls } from '../support/with_calls.js';

async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; domid: number; image: string }> {
  const host = await startTestHost(t, { memoryMib: 128 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-unpaused-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  const plan = { program: 'writer', vcpus: 2, seed: 7, steps: 1e6, rate: 2000, memoryMib: 16 } as const;
  return { host, domid: await bootGuest(host, 'guest', plan), image: join(dir, 'image.dmi') };
}

/** The host, on which `act` is done once a snapshot is taken. */
function afterSnapshot(host: EmbeddedHost, act: () => Promise<void>): Host {
  return withCalls(host, {
    snapshot: async (...args) => {
      const snapshot = await host.snapshot(...args);
      await act();
      return snapshot;
    },
  });
}

test('save of a paused guest that is unpaused meanwhile: it does not run on and end', async (t) => {
  const { host, domid, image } = await setUp(t);
  await host.pause(domid);
  const digest = (await digestDomain(host, 'guest')).digest;
  const meddling = afterSnapshot(host, () => host.unpause(domid));
  const before = await host.progress(domid);
  let atEnd: unknown;
  const watched = withCalls(meddling, {
    noteEnding: async (...args) => {
      await sleep(100);
      atEnd = await host.progress(domid);
      await host.noteEnding(...args);
    },
  });
  await save(watched, 'guest', image, { then: 'destroy' });
  assert.deepEqual(atEnd, before, 'it ran beside the image that was to end it');
  assert.equal((await digestImage(image)).digest, digest);
  assert.deepEqual(await host.list(), []);
});

test('save -p of one that is unpaused meanwhile leaves it paused as the image has it', async (t) => {
  const { host, domid, image } = await setUp(t);
  await host.pause(domid);
  const result = await save(
    afterSnapshot(host, () => host.unpause(domid)),
    'guest',
    image,
    { then: 'pause' },
  );
  assert.equal(result.paused, true);
  assert.equal((await host.info(domid)).paused, true);
  assert.equal((await digestDomain(host, 'guest')).digest, (await digestImage(image)).digest);
});

test('one that is paused or let go meanwhile is told as it is', async (t) => {
  const { host, domid, image } = await setUp(t);
  const pausing = afterSnapshot(host, () => host.pause(domid));
  assert.equal((await save(pausing, 'guest', image, { then: 'resume' })).paused, true);
  assert.equal((await host.info(domid)).paused, true);
  const letting = afterSnapshot(host, () => host.unpause(domid));
  assert.equal((await checkpoint(letting, 'guest', `${image}.2`, { mode: 'light' })).paused, false);
  assert.equal((await host.info(domid)).paused, false);
});

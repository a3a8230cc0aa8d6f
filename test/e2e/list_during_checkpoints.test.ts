/** `list` sampled at 1 kHz through 1,000 light checkpoints never shows `s`, and the guest's counter goes on. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import type { Sampled } from '../support/list_sampler.js';
import type { CheckpointMode } from '../../src/domain/checkpoint_mode.js';

const checkpoints = 1000;

/** A folder that goes with the test, in memory where there is one: not the disk is tried here. */
function fastDir(t: TestContext): string {
  const parent = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const dir = mkdtempSync(join(parent, 'dormouse-list-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Samples while `body` runs. */
async function sampled(body: () => Promise<void>): Promise<Sampled> {
  const sampler = new Worker(new URL('../support/list_sampler.js', import.meta.url), { workerData: 'guest' });
  try {
    await once(sampler, 'message');
    await body();
    sampler.postMessage('stop');
    const [seen] = (await once(sampler, 'message')) as [Sampled];
    return seen;
  } finally {
    await sampler.terminate();
  }
}

/** One checkpoint into a file that is removed again; the counter grows meanwhile, or as soon as the guest has a core. */
async function checkpointOnce(
  host: EmbeddedHost,
  domid: number,
  image: string,
  mode: CheckpointMode,
): Promise<void> {
  const counter = async (): Promise<number> => (await host.progress(domid)).counters[0] ?? 0;
  const before = await counter();
  await checkpoint(host, 'guest', image, { mode });
  rmSync(image);
  await until('the counter grows', 1000, async () => (await counter()) > before);
}

test(`list during ${checkpoints} light checkpoints`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 64 });
  t.after(closeWorkers);
  const image = join(fastDir(t), 'guest.dmi');
  const config = { program: 'counter', rate: 20_000 } as const;
  const domid = await host.create(guestSpec('guest', config, { memoryMib: 8 }), { paused: false });
  await checkpointOnce(host, domid, image, 'light');
  const seen = await sampled(async () => {
    for (let i = 0; i < checkpoints; i++) await checkpointOnce(host, domid, image, 'light');
  });
  t.diagnostic(JSON.stringify(seen));
  assert.deepEqual([seen.shutdowns, seen.pauses, seen.backwards], [0, 0, 0]);
  assert.ok(seen.samples >= checkpoints, 'at least a sample for each checkpoint');
  assert.ok(seen.samples / seen.elapsedMs >= 0.2, 'sampled often');
  const control = await sampled(async () => {
    for (let i = 0; i < 100; i++) await checkpointOnce(host, domid, image, 'cooperative');
  });
  t.diagnostic(`cooperative: ${JSON.stringify(control)}`);
  assert.ok(control.shutdowns > 0, 'the sampler sees the shutdown bit of a cooperative checkpoint');
});

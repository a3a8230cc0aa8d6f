/**
 * 500 random schedules of operations on random guests; each ends in the digest of the untouched run. The seed of a
 * failing one is printed: DORMOUSE_SCHEDULE=SEED runs it alone.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest, finalDigest, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { plainHost } from '../support/plain_host.js';

const schedules = 500;

/** mulberry32: a small seeded generator, so that a printed seed brings the schedule back. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

type Operation =
  | 'save-restore'
  | 'save-resume'
  | 'light'
  | 'cooperative'
  | 'pause'
  | 'light-restore'
  | 'live-light'
  | 'live-resume'
  | 'live-restore';
const operations: readonly Operation[] = [
  'save-restore',
  'save-resume',
  'light',
  'cooperative',
  'pause',
  'light-restore',
  'live-light',
  'live-resume',
  'live-restore',
];

/** The operations on a host without copy-on-write, with its dirty log and without in turn. */
async function applyLive(
  host: EmbeddedHost,
  operation: 'live-light' | 'live-resume' | 'live-restore',
  name: string,
  image: string,
): Promise<void> {
  const plain = plainHost(host, { tracker: name.length % 2 === 0 ? 'log-dirty' : 'content' });
  if (operation === 'live-resume') {
    await save(plain, name, image, { then: 'resume' });
    return;
  }
  await checkpoint(plain, name, image, { mode: operation === 'live-light' ? 'light' : 'cooperative' });
  if (operation === 'live-light') return;
  await host.destroy((await host.find(name)).domid);
  await restore(host, image, { paused: false });
}

async function apply(host: EmbeddedHost, operation: Operation, name: string, image: string): Promise<void> {
  const info = await host.find(name);
  if (info.shutdown !== null) return;
  switch (operation) {
    case 'save-restore':
      await save(host, name, image, { then: 'destroy' });
      await restore(host, image, { paused: false });
      return;
    case 'save-resume':
      await save(host, name, image, { then: 'resume' });
      return;
    case 'light':
    case 'cooperative':
      await checkpoint(host, name, image, { mode: operation });
      return;
    case 'pause':
      await host.pause(info.domid);
      await sleep(1);
      await host.unpause(info.domid);
      return;
    case 'light-restore':
      await checkpoint(host, name, image, { mode: 'light' });
      await host.destroy(info.domid);
      await restore(host, image, { paused: false });
      return;
    case 'live-light':
    case 'live-resume':
    case 'live-restore':
      await applyLive(host, operation, name, image);
  }
}

/** A crash may come between the look and the operation: that refusal is right. */
async function applyUnlessCrashed(
  host: EmbeddedHost,
  operation: Operation,
  name: string,
  image: string,
): Promise<void> {
  try {
    await apply(host, operation, name, image);
  } catch (thrown) {
    const info = await host.find(name);
    if (info.shutdown !== 'crash') throw thrown;
  } finally {
    rmSync(image, { force: true });
  }
}

async function runSchedule(host: EmbeddedHost, dir: string, seed: number): Promise<void> {
  const pick = generator(seed);
  const program = (['counter', 'writer', 'churner', 'crasher'] as const)[pick(4)] ?? 'counter';
  const plan: GuestPlan = {
    program,
    vcpus: 1 + pick(4),
    seed,
    steps: 40 + pick(100),
    rate: 4000 + pick(6000),
    memoryMib: 4 + pick(3),
  };
  const untouched = await untouchedDigest(host, plan);
  const name = pick(2) === 0 ? 'even' : 'odd';
  await bootGuest(host, name, plan);
  const done: string[] = [];
  for (let i = 1 + pick(3); i > 0; i--) {
    await sleep(pick(12));
    const operation = operations[pick(operations.length)] ?? 'light';
    done.push(operation);
    await applyUnlessCrashed(host, operation, name, join(dir, `${seed}.dormouse`));
  }
  const digest = await finalDigest(host, name, plan);
  assert.equal(digest, untouched, `schedule ${seed}: ${JSON.stringify(plan)} through ${done.join(', ')}`);
}

test(`${schedules} random schedules end in the digest of the untouched run`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 256 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-schedules-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  const only = process.env.DORMOUSE_SCHEDULE;
  const first = only === undefined ? Date.now() % 1_000_000_000 : Number(only);
  const count = only === undefined ? schedules : 1;
  t.diagnostic(`seeds ${first} to ${first + count - 1}`);
  for (let seed = first; seed < first + count; seed++) {
    try {
      await runSchedule(host, dir, seed);
    } catch (thrown) {
      throw new Error(`schedule ${seed} failed (DORMOUSE_SCHEDULE=${seed} runs it alone)`, { cause: thrown });
    }
  }
});

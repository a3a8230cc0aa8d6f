/** What results say of where time went: the parts are all of it, on each host and in each mode. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { Host } from '../../src/host/contract.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { plainHost } from '../support/plain_host.js';

const guest: GuestPlan = { program: 'writer', vcpus: 1, seed: 5, steps: 100_000, rate: 3000, memoryMib: 32 };

function assertSum(parts: Readonly<Record<string, number>> | null, wholeMs: number | null): void {
  assert.ok(parts !== null && wholeMs !== null);
  const all = Object.values(parts);
  assert.ok(all.every((ms) => ms >= 0));
  const sum = all.reduce((before, ms) => before + ms, 0);
  assert.ok(Math.abs(sum - wholeMs) < 0.001, `${JSON.stringify(parts)} are not ${wholeMs}`);
}

function assertSpent(parts: Readonly<Record<string, number>> | null, names: readonly string[]): void {
  const spent = Object.entries(parts ?? {}).flatMap(([name, ms]) => (ms > 0 ? [name] : []));
  for (const name of names) assert.ok(spent.includes(name), `nothing went into ${name}: ${spent.join(', ')}`);
}

/** What must have taken time in the pause of each kind of host and mode. */
const kinds = {
  'copy on write': { light: ['snapshotMs'], cooperative: ['stopMs', 'snapshotMs', 'resumeMs'] },
  'log-dirty': {
    light: ['stopMs', 'findMs', 'copyMs', 'resumeMs'],
    cooperative: ['stopMs', 'findMs', 'copyMs', 'resumeMs'],
  },
  content: {
    light: ['stopMs', 'findMs', 'copyMs', 'resumeMs'],
    cooperative: ['stopMs', 'findMs', 'copyMs', 'resumeMs'],
  },
} as const;

for (const kind of ['copy on write', 'log-dirty', 'content'] as const)
  test(`phases and parts of the pause are all of the time (${kind})`, async (t) => {
    t.after(closeWorkers);
    const real = await startTestHost(t);
    const host: Host = kind === 'copy on write' ? real : plainHost(real, { tracker: kind });
    const dir = tempDir(t);
    await bootGuest(real, 'guest', guest);
    for (const mode of ['light', 'cooperative'] as const) {
      const taken = await checkpoint(host, 'guest', join(dir, `${mode}.dmi`), { mode });
      assertSum(taken.phases, taken.elapsedMs);
      assertSum(taken.downtime, taken.pauseMs);
      assertSpent(taken.downtime, kinds[kind][mode]);
      assertSpent(taken.phases, ['prepareMs', 'pauseMs', 'writeMs', 'commitMs', 'settleMs']);
      assert.equal(taken.phases.liveMs > 0, kind !== 'copy on write');
      assert.ok(taken.phases.pauseMs >= taken.pauseMs - 0.001);
    }
    const kept = await save(host, 'guest', join(dir, 'kept.dmi'), { then: 'resume' });
    assertSum(kept.phases, kept.elapsedMs);
    assertSum(kept.downtime, kept.standstillMs);
    const path = join(dir, 'ended.dmi');
    const ended = await save(host, 'guest', path, { then: 'destroy' });
    assertSum(ended.phases, ended.elapsedMs);
    assert.equal(ended.downtime, null);
    assertSpent(ended.phases, ['prepareMs', 'pauseMs', 'writeMs', 'commitMs', 'settleMs']);
    const restored = await restore(host, path, { paused: false });
    assertSum(restored.phases, restored.elapsedMs);
    assertSpent(restored.phases, ['prepareMs', 'writeMs', 'settleMs']);
  });

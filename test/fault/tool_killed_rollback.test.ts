/** SIGKILL, SIGINT and SIGTERM to `rollback` at random moments: its guest runs on, is back, or waits for the next rollback. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { rollback } from '../../src/rollback/rollback.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { errorOf, type Ended } from '../support/command.js';
import { bootGuest, finalDigest, untouchedDigest } from '../support/guests.js';
import { startTestHost, until } from '../support/hosts.js';
import { random, tempDir } from '../support/images.js';
import { interrupt, livelyPlan, measurePace, Undisturbed } from '../support/interrupt.js';
import { killSeed, kills } from '../support/killed.js';

const plan = { ...livelyPlan, steps: 2500 };

function judge(ended: Ended, signal: NodeJS.Signals): void {
  if (ended.exitCode === 0 || ended.signal === signal) return;
  assert.equal(ended.exitCode, signal === 'SIGINT' ? 130 : 143, ended.stderr);
  assert.equal(errorOf(ended).name, 'CANCELLED');
}

test(`rollback, interrupted ${kills} times`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 1024 });
  t.after(closeWorkers);
  t.diagnostic(`seed ${killSeed}`);
  const dir = tempDir(t);
  const image = join(dir, 'point.dmi');
  const untouched = await untouchedDigest(host, plan);
  await bootGuest(host, 'guest', plan);
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const args = ['rollback', '--host', 'embedded:test', 'guest', '--image', image, '--no-safety', '--json'];
  const pace = await measurePace(t, host, args);
  const next = random(killSeed);
  const seen = { working: 0, half: 0 };
  for (let i = 0; i < kills; i++) {
    const before = await Undisturbed.note(host, dir);
    const signal = (['SIGKILL', 'SIGINT', 'SIGKILL', 'SIGTERM'] as const)[i % 4] ?? 'SIGKILL';
    const run = await interrupt(t, host, args, { signal, pace, next });
    judge(run.ended, signal);
    if (run.working) seen.working++;
    await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
    const info = await host.find('guest');
    if (info.rewinding) {
      seen.half++;
      assert.equal(signal, 'SIGKILL', 'a signal that is heard does not leave it half way');
      await rollback(host, 'guest', image);
    } else assert.equal(info.paused, false);
    await before.assertHost(5000);
  }
  t.diagnostic(`${seen.working} came while it worked, ${seen.half} left it half rewound`);
  assert.ok(seen.working >= kills / 6, `only ${seen.working} of ${kills} came while it worked`);
  assert.equal(await finalDigest(host, 'guest', plan), untouched);
});

/** SIGINT and SIGTERM at random moments of each verb: exit 130 or 143, the guest as before, nothing left. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Then } from '../../src/capture/after_commit.js';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { judge, seed, signals, times } from '../support/cancelled.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { random, tempDir } from '../support/images.js';
import {
  interrupt,
  interruptMany,
  livelyPlan,
  measurePace,
  mostRounds,
  Undisturbed,
} from '../support/interrupt.js';

const onHost = ['--host', 'embedded:test', '--json'];

const verbs: Readonly<Record<string, readonly [then: Then, args: readonly string[]]>> = {
  save: ['destroy', ['save']],
  'save -c': ['resume', ['save', '-c']],
  'save -p': ['pause', ['save', '-p']],
  'light checkpoint': ['resume', ['checkpoint']],
  'cooperative checkpoint': ['resume', ['checkpoint', '--mode', 'cooperative']],
};

for (const [name, [then, args]] of Object.entries(verbs))
  test(`${name}, cancelled ${times} times`, async (t) => {
    const host = await startTestHost(t, { memoryMib: 1024 });
    t.after(closeWorkers);
    await interruptMany(t, host, tempDir(t), {
      args: (guest, image) => [...args, guest, image, ...onHost],
      then,
      signals,
      times,
      seed,
      judge: ({ ended, working }, signal, whole) => {
        const cancelled = judge(ended, signal, working);
        if (cancelled) assert.equal(whole, false, 'no image is left');
        return cancelled;
      },
    });
  });

test(`restore, cancelled ${times} times`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  t.after(closeWorkers);
  t.diagnostic(`seed ${seed}`);
  const dir = tempDir(t);
  const image = join(dir, 'guest.dmi');
  const domid = await bootGuest(host, 'gone', { ...livelyPlan, steps: 0 });
  await checkpoint(host, 'gone', image, { mode: 'light' });
  await host.destroy(domid);
  const args = ['restore', image, ...onHost];
  const pace = await measurePace(t, host, args);
  await host.destroy((await host.find('gone')).domid);
  const next = random(seed);
  let cancelled = 0;
  for (let i = 0; i < times || (cancelled === 0 && i < times * mostRounds); i++) {
    const before = await Undisturbed.note(host, dir);
    const signal = signals[i % 2] ?? 'SIGINT';
    const { ended, working } = await interrupt(t, host, args, { signal, pace, next });
    if (judge(ended, signal, working)) cancelled += 1;
    const [domain] = await host.list();
    assert.equal(domain !== undefined, ended.exitCode === 0, ended.stderr);
    if (domain) await host.destroy(domain.domid);
    await before.assertHost(5000);
  }
  assert.ok(cancelled > 0);
});

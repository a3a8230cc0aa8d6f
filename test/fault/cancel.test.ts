/** SIGINT and SIGTERM at random moments of each verb: exit 130 or 143, the guest as before, nothing left. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { errorOf, startCommand, type Ended } from '../support/command.js';
import { bootGuest } from '../support/guests.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { random, tempDir } from '../support/images.js';
import { interrupt, interruptMany, livelyPlan, measurePace, Undisturbed } from '../support/interrupt.js';

const times = 8;
const seed = Date.now() % 1_000_000_000;
const signals = ['SIGINT', 'SIGTERM'] as const;
const onHost = ['--host', 'embedded:test', '--json'];

/** Done before the signal came, ended by it before it was heard, or cancelled. Returns whether it was cancelled. */
function judge(ended: Ended, signal: NodeJS.Signals, working: boolean): boolean {
  if (ended.exitCode === 0) return false;
  if (ended.signal !== null) {
    assert.equal(ended.signal, signal);
    assert.equal(working, false, 'a tool at work hears signals');
    return false;
  }
  assert.equal(ended.exitCode, signal === 'SIGINT' ? 130 : 143, ended.stderr);
  if (working) assert.equal(errorOf(ended).name, 'CANCELLED');
  return true;
}

const verbs: Readonly<Record<string, readonly string[]>> = {
  save: ['save'],
  'save -c': ['save', '-c'],
  'save -p': ['save', '-p'],
  'light checkpoint': ['checkpoint'],
  'cooperative checkpoint': ['checkpoint', '--mode', 'cooperative'],
};

for (const [name, args] of Object.entries(verbs))
  test(`${name}, cancelled ${times} times`, async (t) => {
    const host = await startTestHost(t, { memoryMib: 1024 });
    t.after(closeWorkers);
    let cancelled = 0;
    await interruptMany(t, host, tempDir(t), {
      args: (guest, image) => [...args, guest, image, ...onHost],
      signals,
      times,
      seed,
      judge: ({ ended, working }, signal, whole) => {
        if (!judge(ended, signal, working)) return;
        cancelled += 1;
        assert.equal(whole, false, 'no image is left');
      },
    });
    assert.ok(cancelled > 0);
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
  for (let i = 0; i < times; i++) {
    const before = await Undisturbed.note(host, dir);
    const signal = signals[i % 2] ?? 'SIGINT';
    const { ended, working } = await interrupt(t, host, args, { signal, pace, next });
    if (judge(ended, signal, working)) cancelled += 1;
    const [domain] = await host.list();
    assert.equal(domain !== undefined, ended.exitCode === 0, ended.stderr);
    if (domain) await host.destroy(domain.domid);
    await before.assertHost(1000);
  }
  assert.ok(cancelled > 0);
});

async function deafGuest(t: TestContext) {
  const host = await startTestHost(t);
  const config = { program: 'counter', rate: 1000, deaf: true } as const;
  const domid = await host.create(guestSpec('deaf', config), { paused: false });
  return { host, domid, control: `/local/domain/${domid}/control/shutdown` };
}

const waiting: readonly (readonly string[])[] = [
  ['save'],
  ['save', '-c'],
  ['checkpoint', '--mode', 'cooperative'],
];
for (const args of waiting)
  test(`${args.join(' ')} of a guest that does not answer is cancelled at once`, async (t) => {
    const { host, domid, control } = await deafGuest(t);
    const dir = tempDir(t);
    const before = await Undisturbed.note(host, dir);
    const run = startCommand(t, [...args, 'deaf', join(dir, 'deaf.dmi'), ...onHost]);
    await until('it is asked', 20_000, async () => (await host.xenstore.read(control)) === 'suspend');
    await sleep(50);
    const sentMs = performance.now();
    run.kill('SIGTERM');
    const ended = await run.ended;
    assert.ok(performance.now() - sentMs < 2000, 'it does not wait for the guest');
    assert.equal(ended.exitCode, 143, ended.stderr);
    assert.deepEqual([errorOf(ended).name, errorOf(ended).guest], ['CANCELLED', 'running']);
    assert.equal(await host.xenstore.read(control), '', 'the request is withdrawn');
    await before.assertHost(1000);
    assert.deepEqual(readdirSync(dir), []);
    const from = (await host.progress(domid)).steps[0] ?? 0;
    await until('it goes on', 1000, async () => ((await host.progress(domid)).steps[0] ?? 0) > from);
  });

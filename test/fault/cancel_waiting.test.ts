/** SIGINT and SIGTERM where a tool waits for a guest, only reads, or works on files. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { judge, seed, signals, times } from '../support/cancelled.js';
import { errorOf, startCommand } from '../support/command.js';
import { bootGuest } from '../support/guests.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { random, tempDir } from '../support/images.js';
import { livelyPlan, Undisturbed } from '../support/interrupt.js';

const onHost = ['--host', 'embedded:test', '--json'];

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
    assert.deepEqual([errorOf(ended).name, errorOf(ended).guest], ['CANCELLED', 'untouched']);
    assert.equal(await host.xenstore.read(control), '', 'the request is withdrawn');
    await before.assertHost(5000);
    assert.deepEqual(readdirSync(dir), []);
    const from = (await host.progress(domid)).steps[0] ?? 0;
    await until('it goes on', 1000, async () => ((await host.progress(domid)).steps[0] ?? 0) > from);
  });

/** Signals at random moments of a verb that works on files only, or on a snapshot. */
async function cancelQuietly(t: TestContext, args: readonly string[], dir: string): Promise<void> {
  const startedMs = performance.now();
  assert.equal((await startCommand(t, args).ended).exitCode, 0);
  const [wholeMs, files, next] = [performance.now() - startedMs, readdirSync(dir).length, random(seed)];
  for (let i = 0; i < times; i++) {
    const run = startCommand(
      t,
      args.map((word) => word.replace('%d', String(i))),
    );
    await sleep(wholeMs / 3 + next(Math.ceil((wholeMs * 2) / 3)));
    const signal = signals[i % 2] ?? 'SIGINT';
    const asked = run.kill(signal);
    const ended = await run.ended;
    if (!asked) assert.equal(ended.exitCode, 0);
    else judge(ended, signal, false);
    if (ended.exitCode === 0) continue;
    assert.ok(ended.exitCode === null || [130, 143].includes(ended.exitCode), ended.stderr);
    for (const word of args)
      assert.ok(!word.includes('%d') || !existsSync(word.replace('%d', String(i))), word);
  }
  assert.ok(readdirSync(dir).every((file) => !file.includes('partial')));
  assert.ok(readdirSync(dir).length <= files + times);
}

test('digest, image verify and image convert, cancelled', async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  t.after(closeWorkers);
  const dir = tempDir(t);
  const image = join(dir, 'guest.dmi');
  await bootGuest(host, 'guest', { ...livelyPlan, steps: 0, memoryMib: 128 });
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const before = await Undisturbed.note(host, dir);
  await cancelQuietly(t, ['digest', 'guest', '--host', 'embedded:test'], dir);
  await before.assertHost(5000);
  await cancelQuietly(t, ['image', 'verify', image], dir);
  await cancelQuietly(t, ['image', 'convert', image, join(dir, 'out-%d.xl')], dir);
});

/** A disk that fills up in the middle of an image: a named error, the guest goes on, nothing is left. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { errorOf, startCommand } from '../support/command.js';
import { bootGuest } from '../support/guests.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { livelyPlan, Undisturbed } from '../support/interrupt.js';

interface Case {
  readonly args: readonly string[];
  readonly exitCode: number;
  readonly guest: string;
}
/** 20 where the guest had gone through its suspend call. */
const cases: readonly Case[] = [
  { args: ['save'], exitCode: 20, guest: 'resumed' },
  { args: ['save', '-c'], exitCode: 20, guest: 'resumed' },
  { args: ['save', '-p'], exitCode: 20, guest: 'resumed' },
  { args: ['checkpoint', '--mode', 'cooperative'], exitCode: 20, guest: 'resumed' },
  { args: ['checkpoint'], exitCode: 1, guest: 'untouched' },
];

async function steps(host: EmbeddedHost, domid: number): Promise<number> {
  return (await host.progress(domid)).steps.reduce((sum, done) => sum + done, 0);
}

/** A folder with an image in it that has to survive. */
async function withImages(t: TestContext, dir: string) {
  const host = await startTestHost(t, { memoryMib: 512 });
  t.after(closeWorkers);
  await host.create(guestSpec('small', { program: 'idle' }, { memoryMib: 4 }), { paused: true });
  const old = join(dir, 'old.dmi');
  await checkpoint(host, 'small', old, { mode: 'light' });
  const domid = await bootGuest(host, 'guest', { ...livelyPlan, steps: 0 });
  return { host, domid, bytes: readFileSync(old), old };
}

async function assertFillsUp(
  t: TestContext,
  dir: string,
  how: { readonly fileBlocks?: number },
): Promise<void> {
  const { host, domid, bytes, old } = await withImages(t, dir);
  for (const { args, exitCode, guest } of cases) {
    const what = args.join(' ');
    const before = await Undisturbed.note(host, dir);
    const line = [...args, 'guest', join(dir, 'new.dmi'), '--host', 'embedded:test', '--json'];
    const ended = await startCommand(t, line, how).ended;
    assert.equal(ended.exitCode, exitCode, `${what}: ${ended.stderr}`);
    const error = errorOf(ended);
    assert.deepEqual(
      [error.name, error.guest, error.place?.path],
      ['NO_SPACE', guest, join(dir, 'new.dmi')],
      what,
    );
    await before.assertHost(5000);
    assert.deepEqual(readdirSync(dir), ['old.dmi'], what);
    assert.ok(readFileSync(old).equals(bytes), `${what}: the old image is as it was`);
    const from = await steps(host, domid);
    await until('the guest goes on', 1000, async () => (await steps(host, domid)) > from);
    const { paused, shutdown } = await host.find('guest');
    assert.deepEqual([paused, shutdown], [false, null], what);
  }
}

/** The mount point of a small file system that goes with the test, or why there can be none. */
function mountSmall(t: TestContext): { readonly dir: string } | { readonly reason: string } {
  if (process.getuid?.() !== 0) return { reason: 'only root can mount a small file system' };
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-small-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'none', dir]);
  t.after(() => {
    if (mounted.status === 0) assert.equal(spawnSync('umount', ['--lazy', dir]).status, 0);
    rmdirSync(dir);
  });
  if (mounted.status === 0) return { dir };
  return { reason: `mount: ${mounted.error?.message ?? mounted.stderr.toString().trim()}` };
}

test('a file system that is full', async (t) => {
  const small = mountSmall(t);
  if ('reason' in small) {
    t.skip(small.reason);
    return;
  }
  await assertFillsUp(t, small.dir, {});
  const { bfree, bsize } = statfsSync(small.dir);
  assert.ok(bfree * bsize > 4 * 1024 ** 2, 'the space is free again');
});

test('a limit on the size of files', async (t) => {
  await assertFillsUp(t, tempDir(t), { fileBlocks: 8192 });
});

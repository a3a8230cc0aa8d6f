/** `restore` of a file of `xl save`: one command, nothing left over, nothing made of a file that is not whole. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { command, documentOf, errorOf, failure, startCommand } from '../support/command.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { livelyPlan } from '../support/interrupt.js';

const host = ['--host', 'embedded:test'];

/** An xl file of a guest that has ended, and its digest. */
async function savedGuest(t: TestContext) {
  const [machine, dir] = [await startTestHost(t, { memoryMib: 512 }), tempDir(t)];
  t.after(closeWorkers);
  await bootGuest(machine, 'guest', { ...livelyPlan, steps: 0 });
  const [image, xl] = [join(dir, 'guest.dmi'), join(dir, 'guest.xl')];
  await save(machine, 'guest', image, { then: 'destroy' });
  await convertToXen(image, xl);
  return { machine, dir, xl, digest: (await digestImage(image)).digest };
}

test('a file of xl save, plain or gzip, becomes the guest it holds', async (t) => {
  const { machine, dir, xl, digest } = await savedGuest(t);
  const packed = join(dir, 'guest.xl.gz');
  writeFileSync(packed, gzipSync(readFileSync(xl), { level: 1 }));
  const files = readdirSync(dir);
  for (const [path, from] of [
    [xl, 'xl'],
    [packed, 'xl-gzip'],
  ] as const) {
    const restored = await documentOf(t, 'restore', ['-p', path, ...host]);
    assert.deepEqual([restored.from, restored.name, restored.paused], [from, 'guest', true]);
    assert.equal((await digestDomain(machine, 'guest')).digest, digest);
    assert.deepEqual(readdirSync(dir), files);
    await machine.destroy(Number(restored.domid));
  }
  const scratch = join(dir, 'scratch');
  mkdirSync(scratch);
  assert.equal((await command(t, 'restore', '--scratch', scratch, xl, ...host)).exitCode, 0);
  assert.deepEqual(readdirSync(scratch), []);
});

test('a file that is not whole, and a disk without room: a named error, no domain, no file', async (t) => {
  const { machine, dir, xl } = await savedGuest(t);
  const bytes = readFileSync(xl);
  const cut = join(dir, 'cut.xl');
  writeFileSync(cut, bytes.subarray(0, bytes.length - 40));
  const files = readdirSync(dir);
  await failure(t, 'STREAM_INVALID', 12, ['restore', cut, ...host]);
  await failure(t, 'OUTPUT_INVALID', 1, ['restore', '--scratch', join(dir, 'absent'), xl, ...host]);
  const full = await startCommand(t, ['restore', xl, '--json', ...host], { fileBlocks: 2048 }).ended;
  assert.deepEqual([errorOf(full).name, full.exitCode], ['NO_SPACE', 1]);
  assert.deepEqual(await machine.list(), []);
  assert.deepEqual(readdirSync(dir), files);
});

/**
 * The digest oracle: every guest program × {save/restore, cooperative, light, checkpoint during a save} × 1 and 4 vCPUs
 * ends in the memory and registers of an untouched run.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestImage } from '../../src/digest/digest.js';
import { DormouseError } from '../../src/errors.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers, warmWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';

const programs: readonly GuestPlan['program'][] = ['idle', 'counter', 'writer', 'churner', 'crasher'];
const memoryMib = 16;

function plan(program: GuestPlan['program'], vcpus: number): GuestPlan {
  return { program, vcpus, seed: 1000 + vcpus, steps: 1500, rate: 3000, memoryMib };
}

/** Restores the image beside nothing else of that name, runs it to its end and compares. */
async function restoredDigest(host: EmbeddedHost, image: string, guest: GuestPlan): Promise<string> {
  const { name } = await restore(host, image, { paused: false });
  return finalDigest(host, name, guest);
}

async function throughSave(host: EmbeddedHost, dir: string, guest: GuestPlan): Promise<string[]> {
  await bootGuest(host, 'saved', guest);
  await sleep(40);
  const image = join(dir, 'saved.dormouse');
  await save(host, 'saved', image, { then: 'destroy' });
  await assert.rejects(host.find('saved'), { code: 'DOMAIN_NOT_FOUND' });
  return [await restoredDigest(host, image, guest)];
}

async function throughCheckpoint(
  host: EmbeddedHost,
  dir: string,
  guest: GuestPlan,
  mode: 'light' | 'cooperative',
): Promise<string[]> {
  await bootGuest(host, mode, guest);
  await sleep(40);
  const image = join(dir, `${mode}.dormouse`);
  await checkpoint(host, mode, image, { mode });
  const wentOn = await finalDigest(host, mode, guest);
  return [wentOn, await restoredDigest(host, image, guest)];
}

/** A checkpoint asked for while a save is at work is refused, and harms neither. */
async function checkpointDuringSave(host: EmbeddedHost, dir: string, guest: GuestPlan): Promise<string[]> {
  await bootGuest(host, 'during', guest);
  await sleep(40);
  const image = join(dir, 'during.dormouse');
  let refused: unknown;
  await save(host, 'during', image, {
    then: 'resume',
    onProgress: ({ phase }) => {
      if (phase !== 'pages' || refused !== undefined) return;
      refused = checkpoint(host, 'during', join(dir, 'refused.dormouse'), { mode: 'light' }).catch(
        (thrown: unknown) => thrown,
      );
    },
  });
  const error = await refused;
  assert.ok(error instanceof DormouseError, 'the checkpoint was refused');
  assert.equal(error.code, 'LOCKED');
  assert.equal(error.exitCode, 11);
  assert.ok(!readdirSync(dir).includes('refused.dormouse'));
  const wentOn = await finalDigest(host, 'during', guest);
  return [wentOn, await restoredDigest(host, image, guest)];
}

/** A crasher may crash before a busy machine gets to the operation: that run says nothing, so it is made again. */
async function unlessTooLate(run: () => Promise<string[]>, host: EmbeddedHost): Promise<string[]> {
  for (let attempt = 1; ; attempt++)
    try {
      return await run();
    } catch (thrown) {
      const [domain] = await host.list();
      if (attempt === 5 || domain?.shutdown !== 'crash') throw thrown;
      await host.destroy(domain.domid);
    }
}

async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; dir: string }> {
  const host = await startTestHost(t, { memoryMib: 512 });
  await warmWorkers();
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-images-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  return { host, dir };
}

for (const vcpus of [1, 4])
  for (const program of programs)
    test(`${program} on ${vcpus} vCPUs ends the same through every operation`, async (t) => {
      const { host, dir } = await setUp(t);
      const guest = plan(program, vcpus);
      const untouched = await untouchedDigest(host, guest);
      assert.equal(await untouchedDigest(host, guest), untouched, 'two untouched runs differ');
      const through = (run: () => Promise<string[]>): Promise<string[]> => unlessTooLate(run, host);
      for (const digest of await through(() => throughSave(host, dir, guest)))
        assert.equal(digest, untouched, 'save');
      for (const mode of ['light', 'cooperative'] as const)
        for (const digest of await through(() => throughCheckpoint(host, dir, guest, mode)))
          assert.equal(digest, untouched, mode);
      for (const digest of await through(() => checkpointDuringSave(host, dir, guest)))
        assert.equal(digest, untouched, 'checkpoint during a save');
      const open = Object.entries(steps().openObjects()).filter(([, count]) => count > 0);
      assert.deepEqual(open, []);
      assert.deepEqual(await host.list(), []);
    });

test('an image has the digest of the domain it was taken of', async (t) => {
  const { host, dir } = await setUp(t);
  const guest = plan('churner', 2);
  const untouched = await untouchedDigest(host, guest);
  await bootGuest(host, 'ended', guest);
  await runToEnd(host, 'ended', guest);
  await checkpoint(host, 'ended', join(dir, 'ended.dormouse'), { mode: 'light' });
  assert.equal((await digestImage(join(dir, 'ended.dormouse'))).digest, untouched);
});

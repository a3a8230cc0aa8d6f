/**
 * Guests that use disks while points are taken with them: gone back to and run on, or made anew, memory and disks are in the end those of
 * the guest that was left alone. The guest itself ends where its disk is not what it remembers, as it is if disks are taken before memory.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { guestPrograms } from '../../src/host/embedded/hypervisor.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restorePoint } from '../../src/restore/from_point.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import { PointStore } from '../../src/store/store.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { Dice } from '../support/dice.js';
import { mountXfs, noXfs } from '../support/disk_stage.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';

const program = 'disker';
const skip =
  noXfs ||
  ((guestPrograms as readonly string[]).includes(program) ? false : 'the embedded host has no disks');
const steps = 1500;

async function boot(host: EmbeddedHost, name: string, dir: string, seed: number): Promise<string[]> {
  const disks = ['a', 'b'].map((disk) => join(dir, `${name}.${disk}`));
  for (const disk of disks) {
    writeFileSync(disk, '');
    truncateSync(disk, 256 * 4096);
  }
  const config = { seed, steps, rate: 1500, fillPercent: 30, disks: disks.map((file) => ({ file })) };
  const spec = guestSpec(name, { program: 'idle' }, { memoryMib: 8, vcpus: 2 });
  await host.create({ ...spec, config: JSON.stringify({ program, ...config }) }, { paused: false });
  return disks;
}

interface Late {
  /** Of hosts that have disks. */
  setBackend?(domid: number, index: number, how: { readonly delayUs: number }): Promise<void>;
}

/** So that there always are requests which are carried out and not answered. */
async function answerLate(host: EmbeddedHost, disks: number): Promise<void> {
  const { domid } = await host.find('guest');
  for (let index = 0; index < disks; index++)
    await (host as unknown as Late).setBackend?.(domid, index, { delayUs: 4000 });
}

async function endOf(host: EmbeddedHost, name: string, disks: readonly string[]): Promise<string> {
  const { domid } = await host.find(name);
  await until(`${name} at its end`, 60_000, async () => {
    assert.equal((await host.info(domid)).shutdown, null, 'its disk is not what it remembers');
    return (await host.progress(domid)).steps.every((done) => done >= steps);
  });
  const files = disks.map((disk) => createHash('sha256').update(readFileSync(disk)).digest('hex'));
  return [(await digestDomain(host, name)).digest, ...files].join(' ');
}

async function pointsOf(t: TestContext, seed: number) {
  const host = await startTestHost(t, { memoryMib: 128 });
  t.after(closeWorkers);
  const { dir } = mountXfs(t);
  const alone = await boot(host, 'alone', dir, seed);
  const untouched = await endOf(host, 'alone', alone);
  await host.destroy((await host.find('alone')).domid);
  const disks = await boot(host, 'guest', dir, seed);
  await answerLate(host, disks.length);
  const folder = join(dir, 'store');
  const store = await PointStore.open(folder, { create: true });
  const session = await PointSession.open(host, 'guest', store);
  const ids: string[] = [];
  for (let i = 0; i < 4; i++) {
    await sleep(60);
    const mode = i === 2 ? 'cooperative' : 'light';
    const { record } = await session.take({ mode, reason: 'protect', disks: { kind: 'reflink' } });
    assert.ok(record.disks.kind === 'reflink' && record.disks.disks.length === 2);
    ids.push(record.id);
  }
  await session.end();
  return { host, dir, folder, disks, ids, untouched };
}

test(
  'taken back to any point, and to what was before, it ends as the untouched guest',
  { skip },
  async (t) => {
    const seed = Number(process.env.DORMOUSE_TEST_SEED ?? 1 + Math.floor(Math.random() * 1e9));
    t.diagnostic(`DORMOUSE_TEST_SEED=${seed}`);
    const { host, folder, disks, ids, untouched } = await pointsOf(t, seed % 1000);
    const dice = new Dice(seed);
    for (let i = 0; i < 6; i++) {
      const all = ids[dice.below(ids.length)] ?? '';
      const { safetyPoint, disks: back } = await rollbackToPoint(host, 'guest', folder, all, {
        safety: true,
      });
      assert.deepEqual(back, ['xvda', 'xvdb']);
      ids.push(safetyPoint ?? '');
      await sleep(20 + dice.below(60));
    }
    assert.equal(await endOf(host, 'guest', disks), untouched);
  },
);

test(
  'made anew from a point, it and its new disks end as the untouched guest and its own',
  { skip },
  async (t) => {
    const { host, dir, folder, disks, ids, untouched } = await pointsOf(t, 77);
    const { uuid } = await host.find('guest');
    const diskDir = join(dir, 'new');
    mkdirSync(diskDir);
    const common = { paused: false, name: 'clone', trustConfig: true, diskDir };
    const clone = await restorePoint(host, folder, uuid, ids[1] ?? '', common);
    assert.equal(await endOf(host, 'clone', clone.disks), untouched);
    assert.equal(await endOf(host, 'guest', disks), untouched);
  },
);

/**
 * Random guests, points at random times, some pruned, some flattened, some taken by another session: each point that is left, restored and run on,
 * ends as the untouched guest does. DORMOUSE_POINT_SEEDS says how many (the seed is printed).
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { flattenPoint } from '../../src/convert/flatten_point.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restore } from '../../src/restore/restore.js';
import { PointStore } from '../../src/store/store.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { Dice } from '../support/dice.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { plainHost } from '../support/plain_host.js';

const seeds = Number(process.env.DORMOUSE_POINT_SEEDS ?? 100);
const atOnce = 4;

function planOf(seed: number, dice: Dice): GuestPlan {
  const programs = ['counter', 'writer', 'churner'] as const;
  return {
    program: programs[dice.below(programs.length)] ?? 'counter',
    ...{ vcpus: 1 + dice.below(3), seed, memoryMib: 4 },
    ...{ steps: 200 + dice.below(200), rate: 1500 + dice.below(3000) },
  };
}

/** Any point of the store. */
async function flattenOne(dir: string, name: string, { points }: PointSession, dice: Dice): Promise<void> {
  const ids = await points.ids();
  const id = ids[dice.below(ids.length)];
  if (id !== undefined) await flattenPoint(dir, name, id, {});
}

/** Points by one or two sessions, pruned and flattened now and then, be it that the session goes on from what is flattened. */
async function takePoints(host: EmbeddedHost, name: string, dir: string, dice: Dice): Promise<void> {
  const store = await PointStore.open(dir, { create: true });
  const followed = dice.below(3) === 0 ? plainHost(host, { tracker: 'log-dirty' }) : host;
  // Of a host that does not copy on write only those of suspended guests can be restored.
  const mode = followed === host && dice.below(2) === 0 ? 'light' : 'cooperative';
  for (let sessions = 1 + dice.below(2); sessions > 0; sessions--) {
    const session = await PointSession.open(followed, name, store);
    try {
      for (let points = 1 + dice.below(4); points > 0; points--) {
        await sleep(dice.below(15));
        await session.take({ mode, reason: 'protect', whole: dice.below(8) === 0 });
        if (dice.below(3) === 0) await flattenOne(dir, name, session, dice);
        if (dice.below(4) === 0) await session.points.prune({ last: 1 + dice.below(3) });
      }
    } finally {
      await session.end();
    }
  }
}

async function run(host: EmbeddedHost, dir: string, seed: number): Promise<number> {
  const dice = new Dice(seed);
  const plan = planOf(seed, dice);
  const name = `guest-${seed}`;
  const untouched = await untouchedDigest(host, plan);
  const domid = await bootGuest(host, name, plan);
  const { uuid } = await host.info(domid);
  const folder = join(dir, String(seed));
  await takePoints(host, name, folder, dice);
  assert.equal(await finalDigest(host, name, plan), untouched, 'the guest itself');
  const points = (await PointStore.open(folder, { create: false })).points(uuid);
  const left = await points.list();
  for (const point of left) {
    const path = await points.imagePath(point);
    assert.deepEqual((await verifyImage(path)).findings, [], point.id);
    const again = `again-${seed}`;
    await restore(host, path, { paused: false, name: again, trustConfig: true });
    assert.equal(await finalDigest(host, again, plan), untouched, `point ${point.id}`);
  }
  await points.collect();
  return left.length;
}

test(`${seeds} random guests: every point that is left runs on as the untouched guest`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-oracle-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  const first = Number(process.env.DORMOUSE_POINT_SEED ?? 1 + Math.floor(Math.random() * 1e9));
  t.diagnostic(`DORMOUSE_POINT_SEED=${first}`);
  let [next, points] = [first, 0];
  const worker = async (): Promise<void> => {
    while (next < first + seeds) {
      const seed = next++;
      const left = await run(host, dir, seed).catch((cause: unknown) => {
        throw new Error(`seed ${seed}: ${(cause as Error).message}`, { cause });
      });
      points += left;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  t.diagnostic(`${points} points`);
});

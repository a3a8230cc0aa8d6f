/**
 * Random guests, some with disks or networks, points at random times, some pruned, some flattened, some taken by another session: a guest that is taken back to each
 * point that is left ends as the untouched one does, and so does each point that is restored and run on. DORMOUSE_POINT_SEEDS says how many (the seed is printed).
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { flattenPoint } from '../../src/convert/flatten_point.js';
import { keepersOf } from '../../src/disks/keep.js';
import { type DiskWay, noDisks } from '../../src/disks/way.js';
import { verifyImage } from '../../src/image/verify.js';
import { ImageFile } from '../../src/image/image_file.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restorePoint } from '../../src/restore/from_point.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import { PointStore } from '../../src/store/store.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { Dice } from '../support/dice.js';
import { copyingProgram, mountXfs, noXfs } from '../support/disk_stage.js';
import { bootWithDisks, type DiskPlan, endOf } from '../support/disks.js';
import { bootGuest, finalDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { plainHost } from '../support/plain_host.js';

const seeds = Number(process.env.DORMOUSE_POINT_SEEDS ?? 100);
const atOnce = 4;

function planOf(seed: number, dice: Dice): GuestPlan {
  const programs = ['counter', 'writer', 'churner', 'talker'] as const;
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

let imagesWithDeltas = 0;

/** One that needs more than its parent's files, and has no map of its own. */
async function noteDeltas(path: string): Promise<void> {
  const file = await ImageFile.open(path);
  const needs = await file.ancestors();
  await file.close();
  if (needs.length > 1 && file.footer.mapKind === 'changes') imagesWithDeltas++;
}

/** Points by one or two sessions, pruned and flattened now and then, be it that the session goes on from what is flattened. */
async function takePoints(
  host: EmbeddedHost,
  name: string,
  dir: string,
  disks: DiskWay,
  dice: Dice,
): Promise<void> {
  const keepers = keepersOf(disks.kind === 'command' ? disks.program : null);
  const store = await PointStore.open(dir, { create: true, keepers });
  const followed = dice.below(3) === 0 ? plainHost(host, { tracker: 'log-dirty' }) : host;
  // Of a host that does not copy on write only those of suspended guests can be restored.
  const mode = followed === host && dice.below(2) === 0 ? 'light' : 'cooperative';
  const deltas = dice.below(2) === 0;
  for (let sessions = 1 + dice.below(2); sessions > 0; sessions--) {
    const session = await PointSession.open(followed, name, store);
    try {
      for (let points = (deltas ? 3 : 1) + dice.below(4); points > 0; points--) {
        await sleep(dice.below(15));
        const { path } = await session.take({
          mode,
          reason: 'protect',
          disks,
          deltas,
          whole: dice.below(8) === 0,
        });
        if (deltas) await noteDeltas(path);
        if (dice.below(3) === 0) await flattenOne(dir, name, session, dice);
        if (dice.below(4) === 0) await session.points.prune({ last: 1 + dice.below(3) });
      }
    } finally {
      await session.end();
    }
  }
}

/** A guest that can be made more than once, each time with disks of its own, if any. */
interface Kind {
  /** How its disks are kept. */
  readonly way: DiskWay;
  boot(name: string): Promise<{ domid: number; disks: readonly string[] }>;
  /** Memory and disks once it has done its steps; it is gone then. */
  end(name: string, disks: readonly string[]): Promise<string>;
}

const memoryAlone = (host: EmbeddedHost, plan: GuestPlan): Kind => ({
  way: noDisks,
  boot: async (name) => {
    const domid = await bootGuest(host, name, plan);
    if (plan.program === 'talker') await host.setBackend(domid, 0, { seed: plan.seed + 1 });
    return { domid, disks: [] };
  },
  end: (name) => finalDigest(host, name, plan),
});

function withDisks(host: EmbeddedHost, dir: string, way: DiskWay, plan: DiskPlan): Kind {
  return {
    way,
    boot: (name) => bootWithDisks(host, name, dir, plan),
    end: async (name, disks) => {
      const end = await endOf(host, name, disks, plan);
      await host.destroy((await host.find(name)).domid);
      return end;
    },
  };
}

/** Where disks are kept, and how. */
interface Place {
  readonly dir: string;
  readonly way: DiskWay;
}

function kindOf(host: EmbeddedHost, { dir, way }: Place, seed: number, dice: Dice): Kind {
  if (dice.below(4) !== 0) return memoryAlone(host, planOf(seed, dice));
  const disks = Array.from({ length: 1 + dice.below(2) }, () => 40 + dice.below(100));
  const load = { steps: 300 + dice.below(300), rate: 3000 + dice.below(3000) };
  return withDisks(host, dir, way, { seed, vcpus: 1 + dice.below(2), ...load, disks });
}

/** To each point that is left, in any order, and a while on from there. */
async function goBack(
  host: EmbeddedHost,
  name: string,
  folder: string,
  ids: string[],
  how: DiskWay,
  dice: Dice,
): Promise<void> {
  for (let left = [...ids]; left.length > 0;) {
    const [id = ''] = left.splice(dice.below(left.length), 1);
    const safety = dice.below(4) === 0;
    await rollbackToPoint(host, name, folder, id, { safety, ...(how.kind === 'command' && { disks: how }) });
    await sleep(dice.below(30));
  }
}

async function run(host: EmbeddedHost, place: Place, seed: number): Promise<number> {
  const dice = new Dice(seed);
  const kind = kindOf(host, place, seed, dice);
  const { way } = kind;
  const name = `guest-${seed}`;
  const alone = await kind.boot(`untouched-${seed}`);
  const untouched = await kind.end(`untouched-${seed}`, alone.disks);
  const { domid, disks } = await kind.boot(name);
  const { uuid } = await host.info(domid);
  const folder = join(place.dir, String(seed));
  await takePoints(host, name, folder, way, dice);
  const keepers = keepersOf(way.kind === 'command' ? way.program : null);
  const points = (await PointStore.open(folder, { create: false, keepers })).points(uuid);
  await goBack(host, name, folder, await points.ids(), way, dice);
  assert.equal(await kind.end(name, disks), untouched, 'the guest itself');
  const left = await points.list();
  for (const point of left) {
    assert.deepEqual((await verifyImage(await points.imagePath(point))).findings, [], point.id);
    const again = `again-${seed}-${point.id}`;
    const made = await restorePoint(host, folder, uuid, point.id, {
      ...{ paused: false, name: again, trustConfig: true },
      ...(way.kind !== 'none' && { diskDir: place.dir }),
      ...(way.kind === 'command' && { program: way.program }),
    });
    assert.equal(await kind.end(again, made.disks), untouched, `point ${point.id}`);
    for (const disk of made.disks) unlinkSync(disk);
  }
  assert.deepEqual((await points.prune({ last: 0 })).stuck, []);
  return left.length;
}

/** On a file system that shares blocks where there can be one. */
function placeFor(t: TestContext): Place {
  if (noXfs === false) return { dir: mountXfs(t).dir, way: { kind: 'reflink' } };
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-oracle-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  mkdirSync(join(dir, 'kept'));
  return { dir, way: { kind: 'command', program: copyingProgram(join(dir, 'kept')).program } };
}

test(`${seeds} random guests: every point that is left runs on as the untouched guest`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  const place = placeFor(t);
  t.after(closeWorkers);
  t.diagnostic(`disks: ${place.way.kind}`);
  const first = Number(process.env.DORMOUSE_POINT_SEED ?? 1 + Math.floor(Math.random() * 1e9));
  t.diagnostic(`DORMOUSE_POINT_SEED=${first}`);
  let [next, points] = [first, 0];
  const worker = async (): Promise<void> => {
    while (next < first + seeds) {
      const seed = next++;
      const left = await run(host, place, seed).catch((cause: unknown) => {
        throw new Error(`seed ${seed}: ${(cause as Error).message}`, { cause });
      });
      points += left;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  t.diagnostic(`${points} points left; ${imagesWithDeltas} images had deltas on others than their parent`);
  assert.ok(imagesWithDeltas > 0 || seeds < 20);
});

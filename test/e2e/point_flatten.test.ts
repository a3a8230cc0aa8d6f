/** Points that are flattened hold what they held, need no other point, and share blocks where the file system can. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { flattenPoint } from '../../src/convert/flatten_point.js';
import { digestImage } from '../../src/digest/digest.js';
import { inspectImage } from '../../src/image/inspect.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restorePoint } from '../../src/restore/from_point.js';
import { PointStore } from '../../src/store/store.js';
import type { PointRecord } from '../../src/store/record.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { pointStage, type PointStage, uuidOf } from '../support/point_stage.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 71, steps: 3000, rate: 1500, memoryMib: 16 };

async function take(
  { host, store }: Pick<PointStage, 'host' | 'store'>,
  count: number,
  deltas = false,
): Promise<PointRecord[]> {
  const session = await PointSession.open(host, 'guest', store);
  const taken: PointRecord[] = [];
  try {
    for (let i = 0; i < count; i++) {
      await sleep(30);
      taken.push((await session.take({ mode: 'light', reason: 'protect', deltas })).record);
    }
  } finally {
    await session.end();
  }
  return taken;
}

async function flattenedGoesOn(t: TestContext, deltas: boolean): Promise<void> {
  const stage = await pointStage(t, 128);
  const { host, dir, store } = stage;
  const untouched = await untouchedDigest(host, plan);
  await bootGuest(host, 'guest', plan);
  const [, second, third] = await take(stage, 3, deltas);
  assert.ok(second && third);
  const points = store.points(await uuidOf(stage));
  const held = await Promise.all(
    [second, third].map(async (record) => (await digestImage(await points.imagePath(record))).digest),
  );
  const deltasOf = async (path: string): Promise<boolean> => (await inspectImage(path)).chunks.ofDeltas > 0;
  assert.equal(await deltasOf(await points.imagePath(third)), deltas);
  const done = await flattenPoint(dir, 'guest', second.id, {});
  assert.equal(done.flattened, true);
  assert.equal(await deltasOf(done.path), false);
  assert.deepEqual((await inspectImage(done.path)).ancestors, []);
  assert.deepEqual((await verifyImage(done.path)).findings, []);
  assert.equal((await digestImage(done.path)).digest, held[0]);
  // The third is still built on what the second had.
  assert.equal(done.unneededImages, 0);
  const again = await flattenPoint(dir, 'guest', second.id, {});
  assert.deepEqual([again.flattened, again.path], [false, done.path]);
  // A session that comes later builds on what the last point has now.
  const last = await flattenPoint(dir, 'guest', third.id, {});
  assert.deepEqual([last.flattened, last.unneededImages], [true, 2]);
  const [fourth] = await take(stage, 1);
  assert.ok(fourth);
  const { header } = await inspectImage(await points.imagePath(fourth));
  assert.equal(header?.parent?.imageId, (await points.find(third.id)).image.imageId);
  const pruned = await points.prune({ last: 3 });
  assert.equal(pruned.removed.length, 3);
  assert.equal((await digestImage(last.path)).digest, held[1]);
  assert.deepEqual((await verifyImage(await points.imagePath(fourth))).findings, []);
  await points.prune({ last: 1 });
  await host.destroy((await host.find('guest')).domid);
  const name = 'again';
  await restorePoint(host, dir, 'guest', 'latest', { paused: false, name, trustConfig: true });
  assert.equal(await deltasOf(last.path), false);
  assert.equal(await finalDigest(host, name, plan), untouched);
}

for (const deltas of [false, true])
  test(`a flattened point opens alone and goes on as the guest; those on it go on${deltas ? ', with deltas' : ''}`, (t) =>
    flattenedGoesOn(t, deltas));

/** A small XFS of our own, unmounted however the test ends; null where it cannot be had. */
function xfs(t: TestContext): string | null {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-xfs-'));
  const [file, mounted] = [join(dir, 'disk'), join(dir, 'mounted')];
  let isMounted = false;
  const quiet = { stdio: 'ignore' } as const;
  t.after(() => {
    if (isMounted) execFileSync('umount', [mounted], quiet);
    rmSync(dir, { recursive: true, force: true });
  });
  try {
    writeFileSync(file, '');
    truncateSync(file, 400 << 20);
    mkdirSync(mounted);
    execFileSync('mkfs.xfs', ['-q', '-m', 'reflink=1', file], quiet);
    execFileSync('mount', ['-o', 'loop', file, mounted], quiet);
    isMounted = true;
  } catch {
    return null;
  }
  return mounted;
}

test('what is taken as it is takes no room where the file system can share it', async (t) => {
  const mounted = xfs(t);
  if (mounted === null) {
    t.skip('no XFS can be made and mounted here');
    return;
  }
  const stage = await pointStage(t, 128);
  await bootGuest(stage.host, 'guest', plan);
  const dir = join(mounted, 'store');
  const store = await PointStore.open(dir, { create: true });
  const taken = await take({ host: stage.host, store }, 3);
  const last = taken.at(-1);
  assert.ok(last);
  const points = store.points(await uuidOf(stage));
  const before = (await digestImage(await points.imagePath(last))).digest;
  const done = await flattenPoint(dir, 'guest', last.id, {});
  assert.ok(done.sharedBytes > done.fileBytes / 4, `${done.sharedBytes} of ${done.fileBytes} are shared`);
  assert.equal((await digestImage(done.path)).digest, before);
  await points.prune({ last: 1 });
  assert.deepEqual((await verifyImage(done.path)).findings, []);
  assert.equal(dirname(done.path), dirname(await points.imagePath(last)));
});

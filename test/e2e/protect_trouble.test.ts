/** Stores that lose things, are damaged or too small while points are taken: what is taken can be restored, and it goes on. */
import assert from 'node:assert/strict';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession } from '../../src/protect/point_session.js';
import type { Point } from '../../src/store/domain_points.js';
import { PointStore } from '../../src/store/store.js';
import { failNextRecord, pointStage, type PointStage, runProtect, uuidOf } from '../support/point_stage.js';
import { bootGuest, type GuestPlan } from '../support/guests.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 31, steps: 1e6, rate: 1000, memoryMib: 16 };

async function booted(t: TestContext): Promise<PointStage & { folder: string }> {
  const stage = await pointStage(t);
  await bootGuest(stage.host, 'guest', plan);
  return { ...stage, folder: join(stage.dir, await uuidOf(stage)) };
}

/** As another process sees it. */
async function pointsNow(stage: PointStage): Promise<{ list: Point[]; broken: string[] }> {
  const points = (await PointStore.open(stage.dir, { create: false })).points(await uuidOf(stage));
  const [list, broken] = [await points.list(), [] as string[]];
  for (const point of list) {
    const report = await verifyImage(await points.imagePath(point)).catch(() => null);
    if (report?.findings.length !== 0) broken.push(point.id);
  }
  return { list, broken };
}

test('an image that goes while it is built upon costs the points that need it, and no later one', async (t) => {
  const stage = await booted(t);
  const notices: string[] = [];
  const session = await PointSession.open(stage.host, 'guest', stage.store, (text) => notices.push(text));
  const take = () => session.take({ mode: 'light', reason: 'protect' });
  for (let i = 0; i < 3; i++) await take();
  const [, second = ''] = readdirSync(join(stage.folder, 'images'));
  rmSync(join(stage.folder, 'images', second));
  const after = await take();
  await take();
  await session.end();
  assert.equal(after.record.image.sequence, 0, 'a chain of its own');
  assert.match(notices.join(), /a new chain is begun/u);
  const { list, broken } = await pointsNow(stage);
  assert.deepEqual(
    broken,
    list.slice(1, 3).map(({ id }) => id),
  );
});

test('a lease that somebody removed, and points that somebody forgot: the next point is whole', async (t) => {
  const stage = await booted(t);
  const session = await PointSession.open(stage.host, 'guest', stage.store);
  const take = () => session.take({ mode: 'light', reason: 'protect' });
  await take();
  await take();
  for (const lease of readdirSync(join(stage.folder, 'leases'))) rmSync(join(stage.folder, 'leases', lease));
  const other = (await PointStore.open(stage.dir, { create: false })).points(await uuidOf(stage));
  await other.prune({ last: 0 });
  assert.deepEqual(readdirSync(join(stage.folder, 'images')), []);
  failNextRecord(t);
  await assert.rejects(take(), /away/u);
  await take();
  await take();
  await session.end();
  const { list, broken } = await pointsNow(stage);
  assert.deepEqual([list.length, broken], [2, []]);
});

test('damaged records keep nobody from taking points', async (t) => {
  const stage = await booted(t);
  await runProtect(stage, { count: 2 });
  const { list } = await pointsNow(stage);
  for (const { id } of list) writeFileSync(join(stage.folder, 'points', id), '{');
  const notices: string[] = [];
  const result = await runProtect(stage, {
    count: 12,
    retention: { last: 3 },
    notice: (text) => notices.push(text),
  });
  assert.deepEqual([result.points, result.failed], [12, 0]);
  assert.match(notices.join('\n'), /not pruned[^]*cannot be read/u);
});

test('a session that goes on with a chain begins none before it is long, and a limit holds over many', async (t) => {
  const stage = await booted(t);
  await runProtect(stage, { count: 2, retention: { last: 30 } });
  await runProtect(stage, { count: 12, retention: { last: 30 } });
  const first = (await pointsNow(stage)).list;
  assert.deepEqual(
    first.map(({ image }) => image.sequence),
    first.map((_, i) => i),
  );
  const maxBytes = 2.2 * (first[0]?.image.storedBytes ?? 0);
  for (let i = 0; i < 12; i++)
    assert.equal((await runProtect(stage, { count: 2, maxBytes })).points, 2, `run ${i}`);
  const { list, broken } = await pointsNow(stage);
  assert.deepEqual(broken, []);
  assert.ok(list.length < 26, `${list.length} points are left`);
});

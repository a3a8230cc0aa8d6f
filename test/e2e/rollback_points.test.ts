/** A domain is taken back to points of a store: it goes on as the untouched guest, and the store knows where it goes on from. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession } from '../../src/protect/point_session.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { PointRecord } from '../../src/store/record.js';
import { PointStore } from '../../src/store/store.js';
import { failNextRecord, pointStage, uuidOf } from '../support/point_stage.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';

interface Stage {
  readonly host: EmbeddedHost;
  readonly dir: string;
  readonly points: DomainPoints;
  readonly untouched: string;
}

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 41, steps: 3000, rate: 1500, memoryMib: 16 };

async function setUp(t: TestContext): Promise<Stage> {
  const { host, dir, store } = await pointStage(t, 128);
  const untouched = await untouchedDigest(host, plan);
  await bootGuest(host, 'guest', plan);
  return { host, dir, untouched, points: store.points(await uuidOf({ host })) };
}

async function take({ host, dir }: Stage, count: number): Promise<PointRecord[]> {
  const store = await PointStore.open(dir, { create: false });
  const session = await PointSession.open(host, 'guest', store);
  const taken: PointRecord[] = [];
  for (let i = 0; i < count; i++) {
    await sleep(40);
    taken.push((await session.take({ mode: 'light', reason: 'protect' })).record);
  }
  await session.end();
  return taken;
}

test('back to a point, on from there, and back to what was before', async (t) => {
  const stage = await setUp(t);
  const { host, dir, points } = stage;
  const taken = await take(stage, 4);
  const second = taken[1];
  assert.ok(second);
  await sleep(60);
  const { domid } = await host.find('guest');
  await host.pause(domid);
  const before = (await digestDomain(host, 'guest')).digest;
  const back = await rollbackToPoint(host, 'guest', dir, second.id, { safety: true });
  assert.deepEqual([back.point, back.domid, back.paused], [second.id, domid, true]);
  const digest = (await digestDomain(host, 'guest')).digest;
  assert.equal(digest, (await digestImage(await points.imagePath(second))).digest);
  const safety = await points.find(back.safetyPoint ?? '');
  assert.deepEqual([safety.reason, safety.parent], ['before-rollback', taken[3]?.id]);
  assert.equal((await digestImage(await points.imagePath(safety))).digest, before);
  assert.equal((await points.current())?.id, second.id);
  await host.unpause(domid);
  const [next] = await take(stage, 1);
  assert.deepEqual([next?.parent, next?.image.sequence], [second.id, second.image.sequence + 1]);
  assert.equal((await points.current())?.id, next?.id);
  assert.deepEqual((await verifyImage(await points.imagePath(next ?? second))).findings, []);
  await host.pause(domid);
  const again = await rollbackToPoint(host, 'guest', dir, safety.id, { safety: false });
  assert.equal(again.safetyPoint, null);
  assert.equal((await digestDomain(host, 'guest')).digest, before);
  await points.prune({ last: 2 });
  await host.unpause(domid);
  assert.equal(await finalDigest(host, 'guest', plan), stage.untouched);
});

test('it is left paused at the point, though it ran', async (t) => {
  const stage = await setUp(t);
  const { host, dir, points } = stage;
  const [first] = await take(stage, 2);
  assert.ok(first);
  const back = await rollbackToPoint(host, 'guest', dir, first.id, { safety: true, leavePaused: true });
  assert.equal(back.paused, true);
  const { digest } = await digestImage(await points.imagePath(first));
  assert.equal((await digestDomain(host, 'guest')).digest, digest);
  await host.unpause(back.domid);
  assert.equal((await host.info(back.domid)).paused, false);
  t.mock.method(host, 'rewrite', () => Promise.reject(new Error('injected')));
  await assert.rejects(rollbackToPoint(host, 'guest', dir, first.id, { safety: false, leavePaused: true }));
  assert.equal((await host.info(back.domid)).paused, false, 'nothing of it was changed');
  assert.equal(await finalDigest(host, 'guest', plan), stage.untouched);
});

test('without its safety point nothing goes back; the point that it goes to stays meanwhile', async (t) => {
  const stage = await setUp(t);
  const { host, dir, points } = stage;
  const [first] = await take(stage, 2);
  assert.ok(first);
  failNextRecord(t);
  await assert.rejects(rollbackToPoint(host, 'guest', dir, first.id, { safety: true }), /away/u);
  assert.equal((await points.ids()).length, 2);
  assert.equal((await points.collect()).removed.length, 0, 'the image of the safety point went');
  const info = await host.find('guest');
  assert.deepEqual([info.paused, info.building], [false, false]);
  await assert.rejects(rollbackToPoint(host, 'guest', dir, '2020', { safety: true }), {
    code: 'POINT_NOT_FOUND',
  });
  assert.equal(await finalDigest(host, 'guest', plan), stage.untouched);
});

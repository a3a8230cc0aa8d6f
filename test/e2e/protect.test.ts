/** Points of a running guest: each is the memory at its instant, whatever was pruned, and a new session goes on with the chain. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestImage } from '../../src/digest/digest.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession, type TakenPoint } from '../../src/protect/point_session.js';
import { restore } from '../../src/restore/restore.js';
import type { PointRecord } from '../../src/store/record.js';
import { steps } from '../../src/worker/steps.js';
import { failNextRecord, pointStage, type PointStage, runProtect, uuidOf } from '../support/point_stage.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 31, steps: 2500, rate: 1000, memoryMib: 16 };

const images = ({ dir }: PointStage, { domain }: PointRecord): string[] =>
  readdirSync(join(dir, domain.uuid, 'images')).sort();

for (const deltas of [false, true])
  test(`each point restores to its own instant and runs on as the untouched guest${deltas ? ', with deltas' : ''}`, async (t) => {
    const stage = await pointStage(t);
    const untouched = await untouchedDigest(stage.host, plan);
    await bootGuest(stage.host, 'guest', plan);
    const result = await runProtect(stage, { count: 40, deltas });
    assert.deepEqual([result.points, result.failed, result.skipped, result.ended], [40, 0, 0, 'count']);
    const points = stage.store.points(await uuidOf(stage));
    const records = await points.list();
    assert.equal(records.length, 40);
    assert.equal(new Set(records.map(({ image }) => image.chainId)).size, 1);
    const [first, ...later] = records;
    for (const { image } of later)
      assert.ok(image.storedBytes < (first?.image.storedBytes ?? 0), 'increments are small');
    for (const at of [0, 1, 17, 31, 32, 33, 39]) {
      const record = records[at];
      assert.ok(record);
      const path = await points.imagePath(record);
      assert.deepEqual((await verifyImage(path)).findings, []);
      const name = `from-${at}`;
      const { domid } = await restore(stage.host, path, { paused: false, name, trustConfig: true });
      assert.equal(await finalDigest(stage.host, name, plan), untouched, `point ${at} (domain ${domid})`);
    }
    const { trackers, leases, snapshots } = await stage.host.status();
    assert.deepEqual([trackers, leases.length, snapshots], [0, 0, 0]);
    assert.ok(Object.values(steps().openObjects()).every((open) => open === 0));
  });

test('pruned points go, and what is left restores as before', async (t) => {
  const stage = await pointStage(t);
  // It writes to the same few pages again and again.
  await bootGuest(stage.host, 'guest', { ...plan, program: 'counter', steps: 100_000 });
  await runProtect(stage, { count: 40 });
  const points = stage.store.points(await uuidOf(stage));
  const before = await points.list();
  const pinned = before[5];
  assert.ok(pinned && (await points.pin(pinned.id)));
  const digests = new Map<string, string>();
  for (const record of [pinned, ...before.slice(-3)])
    digests.set(record.id, (await digestImage(await points.imagePath(record))).digest);
  const planned = await points.prune({ last: 3 }, { dryRun: true });
  assert.equal((await points.list()).length, 40, 'a dry run changes nothing');
  const pruned = await points.prune({ last: 3 });
  assert.deepEqual([planned.forgotten, planned.removed], [pruned.forgotten, pruned.removed]);
  assert.equal(pruned.forgotten.length, 36);
  assert.ok(pruned.removed.length > 0 && pruned.freedBytes > 0, 'behind a full map some are not needed');
  const left = await points.list();
  assert.deepEqual(new Set(left.map(({ id }) => id)), new Set(digests.keys()));
  for (const record of left) {
    const path = await points.imagePath(record);
    assert.equal((await digestImage(path)).digest, digests.get(record.id));
    assert.deepEqual((await verifyImage(path)).findings, []);
  }
});

async function takeSome(stage: PointStage, count: number): Promise<TakenPoint[]> {
  const notices: string[] = [];
  const session = await PointSession.open(stage.host, 'guest', stage.store, (text) => notices.push(text));
  const taken: TakenPoint[] = [];
  for (let i = 0; i < count; i++) {
    await sleep(20);
    taken.push(await session.take({ mode: 'light', reason: 'protect' }));
  }
  await session.end();
  assert.deepEqual(notices, []);
  return taken;
}

test('a new session goes on with the chain by what the images hold', async (t) => {
  const stage = await pointStage(t);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const first = await takeSome(stage, 2);
  const second = await takeSome(stage, 2);
  const all = [...first, ...second].map(({ record }) => record);
  assert.deepEqual(
    all.map(({ image }) => image.sequence),
    [0, 1, 2, 3],
  );
  assert.deepEqual(
    all.map(({ parent }) => parent),
    [null, ...all.slice(0, 3).map(({ id }) => id)],
  );
  assert.ok((second[0]?.record.image.changedPages ?? 0) < 2000, 'not all of memory');
  const last = second[1];
  assert.ok(last);
  await restore(stage.host, last.path, { paused: false, name: 'again', trustConfig: true });
  assert.equal(await finalDigest(stage.host, 'again', plan), untouched);
});

test('a point whose record cannot be put is none, and the next one holds what it held', async (t) => {
  const stage = await pointStage(t);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const session = await PointSession.open(stage.host, 'guest', stage.store);
  const { record } = await session.take({ mode: 'light', reason: 'protect' });
  await sleep(50);
  failNextRecord(t);
  await assert.rejects(session.take({ mode: 'light', reason: 'protect' }), /away/u);
  assert.deepEqual(images(stage, record), [record.image.name]);
  const next = await session.take({ mode: 'light', reason: 'protect' });
  await session.end();
  assert.equal(next.record.image.sequence, 1);
  await restore(stage.host, next.path, { paused: false, name: 'next', trustConfig: true });
  assert.equal(await finalDigest(stage.host, 'next', plan), untouched);
});

test('with a limit the oldest chains go, and the points that stay can be read', async (t) => {
  const stage = await pointStage(t);
  await bootGuest(stage.host, 'guest', { ...plan, steps: 100_000 });
  const notices: string[] = [];
  await runProtect(stage, { count: 1 });
  const points = stage.store.points(await uuidOf(stage));
  const maxBytes = 3 * (await points.usedBytes());
  const result = await runProtect(stage, { count: 60, maxBytes, notice: (text) => notices.push(text) });
  assert.equal(result.points, 60);
  assert.ok((await points.usedBytes()) < 1.5 * maxBytes, `${await points.usedBytes()} bytes`);
  const left = await points.list();
  assert.ok(left.length > 1 && left.length < 61, `${left.length} are left`);
  for (const record of left.slice(0, 3))
    assert.deepEqual((await verifyImage(await points.imagePath(record))).findings, []);
  assert.ok(notices.some((text) => text.includes('are forgotten')));
});

test('without room on the disk nothing is taken and nothing goes; told to stop it ends', async (t) => {
  const stage = await pointStage(t);
  await bootGuest(stage.host, 'guest', { ...plan, steps: 100_000 });
  await runProtect(stage, { count: 2 });
  const stop = new AbortController();
  const notices: string[] = [];
  const running = runProtect(stage, {
    minFreeBytes: 2 ** 60,
    signal: stop.signal,
    notice: (text) => {
      notices.push(text);
      stop.abort();
    },
  });
  const result = await running;
  assert.deepEqual([result.points, result.failed, result.ended], [0, 1, 'told']);
  assert.match(notices.join(), /are to stay so/u);
  assert.equal((await stage.store.points(await uuidOf(stage)).list()).length, 2);
});

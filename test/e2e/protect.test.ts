/** Points of a running guest: each is the memory at its instant, whatever was pruned, and a new session goes on with the chain. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestImage } from '../../src/digest/digest.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession, type TakenPoint } from '../../src/protect/point_session.js';
import { protect, type ProtectOptions, type ProtectResult } from '../../src/protect/protect.js';
import { restore } from '../../src/restore/restore.js';
import type { PointRecord } from '../../src/store/record.js';
import { PointStore } from '../../src/store/store.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { steps } from '../../src/worker/steps.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';

interface Stage {
  readonly host: EmbeddedHost;
  readonly dir: string;
  readonly store: PointStore;
}

async function setUp(t: TestContext): Promise<Stage> {
  const host = await startTestHost(t, { memoryMib: 256 });
  const root = mkdtempSync(join(tmpdir(), 'dormouse-points-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(root, { recursive: true, force: true });
  });
  const dir = join(root, 'store');
  return { host, dir, store: await PointStore.open(dir, { create: true }) };
}

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 31, steps: 2500, rate: 1000, memoryMib: 16 };

const defaults = {
  everyMs: 30,
  patient: true,
  mode: 'light',
  reason: 'protect',
  retention: {},
  overBudget: 'take',
  minFreeBytes: 0,
} as const;

function run(stage: Stage, options: Partial<ProtectOptions>): Promise<ProtectResult> {
  const signal = new AbortController().signal;
  return protect(stage.host, 'guest', stage.dir, { ...defaults, signal, ...options });
}

const images = ({ dir }: Stage, { domain }: PointRecord): string[] =>
  readdirSync(join(dir, domain.uuid, 'images')).sort();

async function uuidOf({ host }: Stage): Promise<string> {
  return (await host.find('guest')).uuid;
}

test('each point restores to its own instant and runs on as the untouched guest', async (t) => {
  const stage = await setUp(t);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const result = await run(stage, { count: 40 });
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
  const stage = await setUp(t);
  // It writes to the same few pages again and again.
  await bootGuest(stage.host, 'guest', { ...plan, program: 'counter', steps: 100_000 });
  await run(stage, { count: 40 });
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

async function takeSome(stage: Stage, count: number): Promise<TakenPoint[]> {
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
  const stage = await setUp(t);
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
  const stage = await setUp(t);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const session = await PointSession.open(stage.host, 'guest', stage.store);
  const { record } = await session.take({ mode: 'light', reason: 'protect' });
  await sleep(50);
  const { points } = session;
  t.mock.method(points, 'publish', () => Promise.reject(new Error('the store is away')), { times: 1 });
  await assert.rejects(session.take({ mode: 'light', reason: 'protect' }), /away/u);
  assert.deepEqual(images(stage, record), [record.image.name]);
  const next = await session.take({ mode: 'light', reason: 'protect' });
  await session.end();
  assert.equal(next.record.image.sequence, 1);
  await restore(stage.host, next.path, { paused: false, name: 'next', trustConfig: true });
  assert.equal(await finalDigest(stage.host, 'next', plan), untouched);
});

test('with a limit the oldest chains go, and the points that stay can be read', async (t) => {
  const stage = await setUp(t);
  await bootGuest(stage.host, 'guest', { ...plan, steps: 100_000 });
  const notices: string[] = [];
  await run(stage, { count: 1 });
  const points = stage.store.points(await uuidOf(stage));
  const maxBytes = 3 * (await points.usedBytes());
  const result = await run(stage, { count: 60, maxBytes, notice: (text) => notices.push(text) });
  assert.equal(result.points, 60);
  assert.ok((await points.usedBytes()) < 1.5 * maxBytes, `${await points.usedBytes()} bytes`);
  const left = await points.list();
  assert.ok(left.length > 1 && left.length < 61, `${left.length} are left`);
  for (const record of left.slice(0, 3))
    assert.deepEqual((await verifyImage(await points.imagePath(record))).findings, []);
  assert.ok(notices.some((text) => text.includes('are forgotten')));
});

test('without room on the disk nothing is taken and nothing goes; told to stop it ends', async (t) => {
  const stage = await setUp(t);
  await bootGuest(stage.host, 'guest', { ...plan, steps: 100_000 });
  await run(stage, { count: 2 });
  const stop = new AbortController();
  const notices: string[] = [];
  const running = run(stage, {
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

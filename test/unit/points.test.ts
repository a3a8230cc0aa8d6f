/** Names of points, and what is decided about them from figures alone. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Buffer } from 'node:buffer';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { PauseBudget } from '../../src/protect/pause_budget.js';
import { restMs, retryMs } from '../../src/protect/pace.js';
import { beginsChain, oldestChain } from '../../src/protect/room.js';
import { thisProcess } from '../../src/store/holder.js';
import {
  isPointId,
  nextPointId,
  pointIdOf,
  selectPoint,
  timeOfPointId,
  timeTyped,
} from '../../src/store/point_id.js';
import { decode, encode, pointRecord, storeRecord } from '../../src/store/record.js';
import { PointStore } from '../../src/store/store.js';
import { descentOf, recordOf } from '../support/point_records.js';

const at = Date.parse('2026-11-22T18:35:12.123Z');

test('a point is named by its time, and the next one is always later', () => {
  assert.equal(pointIdOf(at), '20261122-183512.123');
  assert.equal(timeOfPointId(pointIdOf(at)), at);
  assert.equal(nextPointId(at, null), pointIdOf(at));
  assert.equal(nextPointId(at - 5000, pointIdOf(at)), pointIdOf(at + 1), 'the clock went back');
  assert.equal(nextPointId(at + 5000, pointIdOf(at)), pointIdOf(at + 5000));
});

test('points are found as users name them', () => {
  const ids = [at, at + 1000, at + 60_000, at + 61_000].map(pointIdOf);
  const find = (typed: string): string => selectPoint(ids, typed, 'web1');
  assert.equal(find('latest'), ids[3]);
  assert.equal(find('latest~3'), ids[0]);
  assert.equal(find(ids[1] ?? ''), ids[1]);
  assert.equal(find('20261122-183513'), ids[1]);
  for (const typed of ['latest~4', '2025', '20261122', ''])
    assert.throws(() => find(typed), { code: 'POINT_NOT_FOUND' }, typed);
  assert.equal(timeTyped('@2026-11-22T18:36:00Z'), Date.parse('2026-11-22T18:36:00Z'));
  assert.equal(timeTyped('latest'), null);
  assert.throws(() => timeTyped('@soon'), { code: 'USAGE' });
  for (const text of ['99999999-999999.999', '20261122-183512', '20260230-000000.000', 'x'])
    assert.equal(isPointId(text), false, text);
});

test('points that take longer than their share are taken less often, failures less and less', () => {
  assert.equal(restMs(1000, 100), 900);
  assert.equal(restMs(1000, 800), 200);
  assert.equal(restMs(1000, 1600), 400, 'a fifth of the time is left');
  assert.equal(restMs(1, 0), 1);
  assert.deepEqual(
    [1, 2, 5, 7, 100].map((n) => retryMs(100, n)),
    [1000, 2000, 16_000, 60_000, 60_000],
  );
  assert.equal(retryMs(120_000, 1), 120_000);
});

test('a budget learns what a pause takes', () => {
  const budget = new PauseBudget(5);
  assert.equal(budget.fits(10), true);
  for (let i = 0; i < 30; i++) budget.learn(i % 2 === 0 ? 1000 : 500, i % 2 === 0 ? 40 : 20);
  assert.ok(Math.abs(budget.predictMs(1000) - 40) < 2, `${budget.predictMs(1000)} ms`);
  assert.equal(budget.fits(1000), false);
  assert.equal(budget.fits(20), true);
  for (let i = 0; i < 60; i++) budget.learn(10, 12);
  assert.ok(Math.abs(budget.predictMs(10) - 12) < 1, `${budget.predictMs(10)} ms`);
  for (let i = 0; i < 60; i++) budget.learn(i % 20, 12);
  assert.equal(budget.fits(0), false, 'even without a page it takes 12 ms');
  for (let i = 0; i < 50; i++) budget.learn(10, 2);
  budget.learn(10, 40);
  assert.equal(budget.fits(10), false);
  for (let i = 0; i < 20; i++) budget.skipped();
  assert.equal(budget.fits(10), true, 'one slow pause is not for ever');
  for (let i = 0; i < 60; i++) budget.learn(10, 0);
  assert.ok(budget.predictMs(10) >= 0 && budget.fits(10));
});

test('a chain is ended when its increments outgrow it, or half the room', () => {
  const chain = { wholeBytes: 100, chainBytes: 400 };
  assert.equal(beginsChain(chain, { maxBytes: Infinity, ages: true }), false);
  assert.equal(beginsChain({ ...chain, chainBytes: 501 }, { maxBytes: Infinity, ages: true }), true);
  assert.equal(beginsChain({ ...chain, chainBytes: 501 }, { maxBytes: Infinity, ages: false }), false);
  assert.equal(beginsChain(chain, { maxBytes: 700, ages: true }), true);
  assert.equal(
    beginsChain({ ...chain, chainBytes: 140 }, { maxBytes: 200, ages: true }),
    false,
    'not every one',
  );
  const points = [
    { id: '1', chainId: 'a', pinned: true },
    { id: '2', chainId: 'a', pinned: false },
    { id: '3', chainId: 'b', pinned: false },
    { id: '4', chainId: 'b', pinned: false },
    { id: '5', chainId: 'c', pinned: false },
  ];
  assert.deepEqual(oldestChain(points, 'c'), ['2']);
  assert.deepEqual(oldestChain(points.slice(2), 'c'), ['3', '4']);
  assert.deepEqual(oldestChain(points.slice(4), 'c'), []);
});

test('a record is read only if it is one, and of a newer version is told as that', () => {
  const record = recordOf(pointIdOf(at), 'a.dmi', descentOf('a', [], 'full'));
  assert.deepEqual(decode(pointRecord, encode(record), 'it'), record);
  const damaged = (value: unknown): void => {
    assert.throws(() => decode(pointRecord, encode(value), 'it'), { code: 'STORE_DAMAGED' });
  };
  assert.throws(() => decode(pointRecord, Buffer.from('{"version":'), 'it'), { code: 'STORE_DAMAGED' });
  for (const value of [null, 3, [], {}, { ...record, id: '../x' }, { ...record, version: 0 }]) damaged(value);
  for (const name of ['', '.', '..', '.x', 'a/b', 'a\0', '-x'])
    damaged({ ...record, image: { ...record.image, name } });
  assert.throws(() => decode(pointRecord, encode({ ...record, version: 2 }), 'it'), {
    code: 'STORE_INVALID',
  });
  assert.throws(() => decode(storeRecord, encode({ format: 'other', version: 1 }), 'it'), {
    code: 'STORE_DAMAGED',
  });
});

test('a folder of other things is no store, and stays as it is', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-store-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  await assert.rejects(PointStore.open(join(dir, 'none'), { create: false }), { code: 'STORE_INVALID' });
  writeFileSync(join(dir, 'mine'), '');
  await assert.rejects(PointStore.open(dir, { create: true }), { code: 'STORE_INVALID' });
  await assert.rejects(PointStore.open(join(dir, 'mine'), { create: true }), (thrown: { code: string }) =>
    ['IMAGE_WRITE_FAILED', 'STORE_INVALID'].includes(thrown.code),
  );
  await PointStore.open(join(dir, 'a/b'), { create: true });
  await PointStore.open(join(dir, 'a/b'), { create: false });
  writeFileSync(join(dir, 'a/dormouse-store.json'), '{"format":"dormouse store","version":2}');
  await assert.rejects(PointStore.open(join(dir, 'a'), { create: true }), { code: 'STORE_INVALID' });
});

test('a holder is dead only if that is certain', async () => {
  const { name } = thisProcess;
  assert.equal(thisProcess.isDead(name), false);
  const [machine = '', boot = '', namespace = '', , start = ''] = name.split('-');
  const of = (...parts: string[]): boolean => thisProcess.isDead(parts.join('-'));
  assert.equal(of(machine, '000000000000', namespace, '1', '5'), true, 'another boot');
  assert.equal(of('000000000000', boot, namespace, '1', '5'), false, 'another machine');
  assert.equal(of(machine, boot, '1', String(process.pid), '5'), false, 'another namespace of processes');
  assert.equal(
    of(machine, boot, namespace, String(process.pid), `${start}0`),
    true,
    'its number went to another',
  );
  const child = spawn('true');
  const { pid } = child;
  await once(child, 'exit');
  assert.equal(of(machine, boot, namespace, String(pid), start), true);
  for (const nobody of ['', 'x', `${name}-1`]) assert.equal(thisProcess.isDead(nobody), false);
});

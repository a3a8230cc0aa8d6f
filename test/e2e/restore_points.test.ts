/** Points become new domains, and no prune takes their images meanwhile. */
import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restorePoint } from '../../src/restore/from_point.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { PointRecord } from '../../src/store/record.js';
import { documentOf } from '../support/command.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { plainHost } from '../support/plain_host.js';
import { pointStage, type PointStage, uuidOf } from '../support/point_stage.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 42, steps: 3000, rate: 1500, memoryMib: 16 };

interface Stage extends PointStage {
  readonly points: DomainPoints;
  readonly taken: readonly PointRecord[];
  readonly untouched: string;
}

/** Three points of a guest that runs on; `light`: as a host takes them that does not copy on write. */
async function setUp(t: TestContext, { light = false } = {}): Promise<Stage> {
  const stage = await pointStage(t, 128);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const host = light ? plainHost(stage.host, { tracker: 'log-dirty' }) : stage.host;
  const session = await PointSession.open(host, 'guest', stage.store);
  const taken: PointRecord[] = [];
  for (let i = 0; i < 3; i++) {
    await sleep(30);
    taken.push((await session.take({ mode: 'light', reason: 'protect' })).record);
  }
  await session.end();
  return { ...stage, untouched, taken, points: stage.store.points(await uuidOf(stage)) };
}

const leasesOf = ({ dir, points }: Stage): string[] => readdirSync(join(dir, points.uuid, 'leases'));

test('each point becomes a domain that goes on from there, beside the one that still runs', async (t) => {
  const stage = await setUp(t);
  const { host, dir, taken, points, untouched } = stage;
  const { uuid } = await host.find('guest');
  for (const [i, record] of taken.entries()) {
    const typed = `latest~${taken.length - 1 - i}`;
    const made = await restorePoint(host, dir, 'guest', typed, { paused: true, name: 'again' });
    assert.deepEqual([made.point, made.name], [record.id, 'again']);
    const again = await host.info(made.domid);
    assert.notEqual(again.uuid, uuid);
    assert.deepEqual(made.notes, [
      `its uuid is ${again.uuid}, for that of the image, ${uuid}, is the one of domain 'guest'`,
    ]);
    const { digest } = await digestImage(await points.imagePath(record));
    assert.equal((await digestDomain(host, 'again')).digest, digest);
    await host.unpause(made.domid);
    assert.equal(await finalDigest(host, 'again', plan), untouched, record.id);
  }
  assert.equal(await finalDigest(host, 'guest', plan), untouched, 'the guest itself');
  assert.deepEqual(leasesOf(stage), []);
});

test('by the command line, of a domain that is gone: it gets its uuid back', async (t) => {
  const { host, dir, taken } = await setUp(t);
  const { domid, uuid } = await host.find('guest');
  await host.destroy(domid);
  const line = ['guest', taken[1]?.id ?? '', '--store', dir, '-p', '--host', 'embedded:test'];
  const made = await documentOf(t, 'restore', line);
  assert.deepEqual([made.point, made.paused, made.notes], [taken[1]?.id, true, []]);
  assert.equal((await host.find('guest')).uuid, uuid);
});

test('a prune meanwhile forgets the point and leaves its images', async (t) => {
  const stage = await setUp(t);
  const { host, dir, taken, points, untouched } = stage;
  const second = taken[1];
  assert.ok(second);
  const needed = await points.needs(second.image.name);
  assert.ok(needed.size >= 2, 'an increment');
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its host
  const real = host.build;
  t.mock.method(host, 'build', async (...args: Parameters<typeof host.build>) => {
    const pruned = await points.prune({ last: 0 });
    assert.deepEqual([pruned.forgotten.length, pruned.removed], [3, [taken[2]?.image.name]]);
    return await real.apply(host, args);
  });
  await restorePoint(host, dir, 'guest', second.id, { paused: false, name: 'again' });
  assert.equal(await finalDigest(host, 'again', plan), untouched);
  assert.deepEqual(leasesOf(stage), []);
  assert.equal((await points.collect()).removed.length, needed.size, 'what was leased');
});

test('what cannot be restored leaves no domain and no lease', async (t) => {
  const stage = await setUp(t, { light: true });
  const { host, dir, taken, points } = stage;
  const options = { paused: true, name: 'again' };
  const fails = async (code: string, domain: string, point: string): Promise<void> => {
    await assert.rejects(restorePoint(host, dir, domain, point, options), { code });
    assert.equal((await host.list()).length, 1, code);
    assert.deepEqual(leasesOf(stage), [], code);
  };
  await fails('IMAGE_NOT_RESTORABLE', 'guest', 'latest');
  await fails('POINT_NOT_FOUND', 'guest', '2020');
  await fails('POINT_NOT_FOUND', 'nobody', 'latest');
  const [first, second] = await Promise.all(taken.map((record) => points.imagePath(record)));
  assert.ok(first && second);
  renameSync(second, `${second}.away`);
  await fails('STORE_DAMAGED', 'guest', taken[1]?.id ?? '');
  copyFileSync(first, second);
  await fails('STORE_DAMAGED', 'guest', taken[1]?.id ?? '');
});

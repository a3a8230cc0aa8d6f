/**
 * Guests with networks through every operation: memory ends as that of a guest left alone, whatever was on the wire, lost, doubled
 * or from a time that was taken back.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { restore } from '../../src/restore/restore.js';
import { rollback } from '../../src/rollback/rollback.js';
import { save } from '../../src/save/save.js';
import { closeWorkers, warmWorkers } from '../../src/worker/pool.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { plainHost } from '../support/plain_host.js';

const plan: GuestPlan = { program: 'talker', seed: 5, vcpus: 2, steps: 1200, rate: 6000, memoryMib: 8 };

async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; dir: string }> {
  const host = await startTestHost(t, { memoryMib: 256 });
  await warmWorkers();
  t.after(closeWorkers);
  return { host, dir: tempDir(t) };
}

async function reachStep(host: EmbeddedHost, domid: number, step: number): Promise<void> {
  await until(`domain ${domid} at step ${step}`, 20_000, async () => {
    assert.equal((await host.info(domid)).shutdown, null, 'the guest ended: it got what it did not send');
    return (await host.progress(domid)).steps.every((done) => done >= step);
  });
}

const homes = (domid: number, index = 0): readonly [front: string, back: string] => [
  `/local/domain/${domid}/device/vif/${index}`,
  `/local/domain/0/backend/vif/${domid}/${index}`,
];

const states = (host: EmbeddedHost, domid: number, index = 0): Promise<(string | null)[]> =>
  Promise.all(homes(domid, index).map((home) => host.xenstore.read(`${home}/state`)));

test('a domain has the nodes of its networks in xenstore, and both ends close with its program', async (t) => {
  const { host } = await setUp(t);
  const config = { program: 'talker', steps: 300, networks: 2 } as const;
  const domid = await host.create(guestSpec('guest', config), { paused: true });
  assert.deepEqual(await states(host, domid), ['1', '2']);
  const [front, back] = homes(domid, 1);
  await host.unpause(domid);
  const mac = await host.xenstore.read(`${front}/mac`);
  assert.match(mac ?? '', /^00:16:3e(:[0-9a-f]{2}){3}$/u);
  assert.notEqual(mac, await host.xenstore.read(`${homes(domid)[0]}/mac`));
  assert.equal(await host.xenstore.read(`${back}/mac`), mac);
  assert.ok(Number(await host.xenstore.read(`${front}/tx-ring-ref`)) > 0);
  await reachStep(host, domid, 300);
  for (const index of [0, 1])
    await until(
      'the network is closed',
      5000,
      async () => (await states(host, domid, index)).join() === '6,6',
    );
  await host.destroy(domid);
  assert.equal(await host.xenstore.read(`${back}/state`), null);
  await assert.rejects(host.create(guestSpec('guest', { ...config, networks: 5 }), { paused: true }), {
    code: 'CONFIG_INVALID',
  });
  assert.deepEqual(await host.list(), []);
});

test('save and restore, and a light checkpoint and its clone, with frames on the wire', async (t) => {
  const { host, dir } = await setUp(t);
  const untouched = await untouchedDigest(host, plan);
  const domid = await bootGuest(host, 'guest', plan);
  for (const index of [0, 1]) await host.setBackend(domid, index, { delayUs: 2000, seed: 9 });
  await reachStep(host, domid, 200);
  const [front, back] = homes(domid);
  let moved = 0;
  for (const home of [front, back]) await host.xenstore.watch(`${home}/state`, () => moved++);
  moved = 0;
  const point = join(dir, 'point.dormouse');
  await checkpoint(host, 'guest', point, { mode: 'light' });
  await checkpoint(host, 'guest', join(dir, 'other.dormouse'), { mode: 'cooperative' });
  assert.equal(moved, 0, 'nothing of its devices changed');
  const image = join(dir, 'saved.dormouse');
  await save(host, 'guest', image, { then: 'destroy' });
  const again = await restore(host, image, { paused: false });
  await host.setBackend(again.domid, 1, { delayUs: 500, seed: 3 });
  await restore(host, point, { paused: false, name: 'clone' });
  assert.equal(await finalDigest(host, 'guest', plan), untouched, 'saved and restored');
  assert.equal(await finalDigest(host, 'clone', plan), untouched, 'the clone');
});

test('saved through the eyes of a host like Xen, its backends writing all along', async (t) => {
  const { host, dir } = await setUp(t);
  const untouched = await untouchedDigest(host, plan);
  for (const tracker of ['log-dirty', 'content'] as const) {
    const domid = await bootGuest(host, tracker, plan);
    await host.setBackend(domid, 0, { delayUs: 1000, seed: 2 });
    await reachStep(host, domid, 150);
    const image = join(dir, `${tracker}.dormouse`);
    await save(plainHost(host, { tracker, asXen: 'pv' }), tracker, image, { then: 'destroy' });
    await restore(host, image, { paused: false });
    assert.equal(await finalDigest(host, tracker, plan), untouched, tracker);
  }
});

const moment = fc.record({
  at: fc.integer({ min: 50, max: 500 }),
  run: fc.integer({ min: 20, max: 700 }),
  holds: fc.constantFrom('nothing' as const, 'requests' as const, 'answers' as const),
  delayUs: fc.nat(1500),
  seed: fc.nat(50),
});

test('rolled back in place, from anywhere, frames of the time that was taken back still arriving', async (t) => {
  const { host, dir } = await setUp(t);
  const property = fc.asyncProperty(
    fc.nat(1000),
    fc.integer({ min: 1, max: 4 }),
    moment,
    async (seed, vcpus, on) => {
      const guest = { ...plan, seed, vcpus, steps: 900 };
      const untouched = await untouchedDigest(host, guest);
      const domid = await bootGuest(host, 'guest', guest);
      await reachStep(host, domid, on.at);
      await host.setBackend(domid, 0, { holds: on.holds, delayUs: on.delayUs, seed: on.seed });
      const image = join(dir, `${seed}-${Date.now()}.dormouse`);
      await checkpoint(host, 'guest', image, { mode: 'light' });
      await host.setBackend(domid, 0, { delayUs: on.delayUs, seed: on.seed });
      // Also beyond its end, where its networks are closed.
      await reachStep(host, domid, Math.min(guest.steps, on.at + on.run));
      const { putPages } = await rollback(host, 'guest', image, {});
      assert.ok(putPages > 0);
      assert.deepEqual(await states(host, domid), ['4', '4']);
      assert.equal(await finalDigest(host, 'guest', guest), untouched);
    },
  );
  const outcome = await fc.check(property, { numRuns: 12, endOnFailure: true });
  t.diagnostic(`seed ${outcome.seed}, ${outcome.numRuns} rollbacks`);
  assert.ok(!outcome.failed, fc.defaultReportMessage(outcome));
});

test('a network whose backend never closes: the rollback is refused in time, and the guest goes on', async (t) => {
  const { host, dir } = await setUp(t);
  // It does not end meanwhile, however slow the machine is.
  const guest = { ...plan, steps: 20_000 };
  const domid = await bootGuest(host, 'guest', guest);
  await reachStep(host, domid, 100);
  const image = join(dir, 'point.dormouse');
  await checkpoint(host, 'guest', image, { mode: 'light' });
  await host.setBackend(domid, 1, { neverCloses: true });
  await assert.rejects(rollback(host, 'guest', image, {}), { code: 'HOST_UNAVAILABLE' });
  const { rewinding, paused } = await host.info(domid);
  assert.deepEqual([rewinding, paused], [undefined, false]);
  assert.deepEqual([...(await states(host, domid)), ...(await states(host, domid, 1))], ['4', '4', '4', '4']);
  await host.setBackend(domid, 1, {});
  await rollback(host, 'guest', image, {});
  await reachStep(host, domid, 300);
});

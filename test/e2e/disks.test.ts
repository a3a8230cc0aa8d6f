/**
 * Guests with disks through every operation: memory and disks end as those of a guest left alone, whatever was in flight. The disks
 * of a point are copied while the guest stands, and put back while its backends are away.
 */
import assert from 'node:assert/strict';
import { copyFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import type { BackendBehaviour } from '../../src/host/embedded/hypervisor.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { restore } from '../../src/restore/restore.js';
import { rollback } from '../../src/rollback/rollback.js';
import { save } from '../../src/save/save.js';
import { closeWorkers, warmWorkers } from '../../src/worker/pool.js';
import {
  bootWithDisks,
  configOf,
  copyDisks,
  type DiskPlan,
  endOf,
  newDisk,
  putDisks,
  reachStep,
  rewritingHost,
  untouchedEnd,
  withDisks,
} from '../support/disks.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { plainHost } from '../support/plain_host.js';

interface Stage {
  readonly host: EmbeddedHost;
  readonly dir: string;
}

async function setUp(t: TestContext): Promise<Stage> {
  const host = await startTestHost(t, { memoryMib: 256 });
  await warmWorkers();
  t.after(closeWorkers);
  return { host, dir: tempDir(t) };
}

const plan: DiskPlan = { seed: 5, vcpus: 2, steps: 1200, rate: 6000, disks: [128, 300] };

interface Point {
  readonly image: string;
  readonly disks: readonly string[];
}

/** A light image, and the disks as of it. */
async function takePoint({ host, dir }: Stage, name: string, disks: readonly string[]): Promise<Point> {
  const { domid } = await host.find(name);
  const image = join(dir, `${name}-${Date.now()}.dormouse`);
  await host.pause(domid);
  await checkpoint(host, name, image, { mode: 'light' });
  const copies = copyDisks(dir, disks);
  await host.unpause(domid);
  return { image, disks: copies };
}

async function behave(host: EmbeddedHost, domid: number, how: Partial<BackendBehaviour>): Promise<void> {
  for (const index of (await host.disks(domid)).keys()) await host.setBackend(domid, index, how);
}

const vbd = (domid: number, index = 0): { front: string; back: string } => ({
  front: `/local/domain/${domid}/device/vbd/${51712 + 16 * index}`,
  back: `/local/domain/0/backend/vbd/${domid}/${51712 + 16 * index}`,
});

async function states(host: EmbeddedHost, domid: number, index = 0): Promise<(string | null)[]> {
  const { front, back } = vbd(domid, index);
  return [await host.xenstore.read(`${front}/state`), await host.xenstore.read(`${back}/state`)];
}

test('a domain has the nodes of its disks in xenstore, and both ends close with its program', async (t) => {
  const { host, dir } = await setUp(t);
  const [file, other] = [newDisk(dir, 128), newDisk(dir, 64)];
  const link = join(dir, 'link');
  symlinkSync(file, link);
  const config = {
    ...configOf({ ...plan, steps: 300 }, []),
    disks: [{ file: link }, { file: other, readOnly: true }],
  };
  const domid = await host.create(guestSpec('guest', config), { paused: true });
  assert.deepEqual(await host.disks(domid), [
    { name: 'xvda', path: file, kind: 'file', writable: true },
    { name: 'xvdb', path: other, kind: 'file', writable: false },
  ]);
  assert.deepEqual(await states(host, domid), ['1', '2']);
  const { front, back } = vbd(domid);
  const seen = new Map<string, string[]>();
  for (const home of [front, back]) {
    const list: string[] = [];
    seen.set(home, list);
    await host.xenstore.watch(`${home}/state`, (path) => {
      void host.xenstore.read(path).then((value) => value !== null && list.push(value));
    });
  }
  await host.setBackend(domid, 0, { holds: 'requests' });
  await host.unpause(domid);
  assert.deepEqual(await states(host, domid), ['4', '4']);
  const read = async (path: string): Promise<string> => (await host.xenstore.read(path)) ?? '';
  assert.deepEqual(
    await Promise.all(
      ['backend', 'backend-id', 'virtual-device', 'protocol'].map((node) => read(`${front}/${node}`)),
    ),
    [back, '0', '51712', 'x86_64-abi'],
  );
  assert.deepEqual(
    await Promise.all(
      ['frontend', 'params', 'mode', 'sectors', 'dev'].map((node) => read(`${back}/${node}`)),
    ),
    [front, file, 'w', '1024', 'xvda'],
  );
  assert.equal(await read(`${vbd(domid, 1).back}/mode`), 'r');
  assert.ok(Number(await read(`${front}/ring-ref`)) >= 8 && Number(await read(`${front}/event-channel`)) > 0);
  await host.setBackend(domid, 0, {});
  await reachStep(host, domid, 300);
  await until('the disks are closed', 2000, async () => (await states(host, domid)).join() === '6,6');
  await until('the watches have fired', 2000, () => seen.get(front)?.at(-1) === '6');
  await host.destroy(domid);
  assert.equal(await host.xenstore.read(`${back}/state`), null);
});

test('disks that cannot be had are refused by name, and no domain is left', async (t) => {
  const { host, dir } = await setUp(t);
  const disk = newDisk(dir, 16);
  const odd = join(dir, 'odd');
  writeFileSync(odd, 'not a page');
  const create = (name: string, disks: { file: string; readOnly?: boolean }[]): Promise<number> =>
    host.create(guestSpec(name, { program: 'idle', disks }), { paused: true });
  for (const file of [join(dir, 'none'), dir, odd])
    await assert.rejects(create('guest', [{ file }]), { code: 'CONFIG_INVALID' });
  await assert.rejects(create('guest', [{ file: 'relative' }]), { code: 'CONFIG_INVALID' });
  await assert.rejects(create('guest', [{ file: disk }, { file: disk }]), { code: 'DISK_IN_USE' });
  await assert.rejects(
    create(
      'guest',
      Array.from({ length: 5 }, () => ({ file: newDisk(dir, 16) })),
    ),
    { code: 'CONFIG_INVALID' },
  );
  const first = await create('first', [{ file: disk }]);
  await assert.rejects(create('second', [{ file: disk }]), { code: 'DISK_IN_USE' });
  await assert.rejects(create('second', [{ file: disk, readOnly: true }]), { code: 'DISK_IN_USE' });
  await host.destroy(first);
  await create('third', [{ file: disk, readOnly: true }]);
  await create('fourth', [{ file: disk, readOnly: true }]);
  assert.deepEqual(
    (await host.list()).map(({ name }) => name),
    ['third', 'fourth'],
  );
});

test('save and restore, and a light checkpoint and its clone, with requests in flight', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  const untouched = await untouchedEnd(host, dir, plan);
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, plan);
  await behave(host, domid, { delayUs: 2000, seed: 9 });
  await reachStep(host, domid, 200);
  const point = await takePoint(stage, 'guest', disks);
  const image = join(dir, 'saved.dormouse');
  await save(host, 'guest', image, { then: 'destroy' });
  await assert.rejects(
    restore(host, image, { paused: false, config: withDisks(plan, [join(dir, 'none'), 'x']) }),
  );
  const back = await restore(host, image, { paused: false });
  await behave(host, back.domid, { delayUs: 500, seed: 3 });
  await assert.rejects(restore(host, point.image, { paused: false, name: 'clone' }), { code: 'DISK_IN_USE' });
  assert.equal((await host.list()).length, 1);
  await restore(host, point.image, {
    ...{ paused: false, name: 'clone' },
    config: withDisks(plan, point.disks),
  });
  assert.equal(await endOf(host, 'guest', disks, plan), untouched, 'saved and restored');
  assert.equal(await endOf(host, 'clone', point.disks, plan), untouched, 'the clone');
});

test('saved through the eyes of a host like Xen, its backends writing all along', async (t) => {
  const { host, dir } = await setUp(t);
  const untouched = await untouchedEnd(host, dir, plan);
  for (const tracker of ['log-dirty', 'content'] as const) {
    const { domid, disks } = await bootWithDisks(host, tracker, dir, plan);
    await behave(host, domid, { delayUs: 3000, seed: 2 });
    await reachStep(host, domid, 150);
    const image = join(dir, `${tracker}.dormouse`);
    await save(plainHost(host, { tracker, asXen: 'pv' }), tracker, image, { then: 'destroy' });
    await restore(host, image, { paused: false });
    assert.equal(await endOf(host, tracker, disks, plan), untouched, tracker);
  }
});

const moment = fc.record({
  at: fc.integer({ min: 50, max: 500 }),
  run: fc.integer({ min: 20, max: 700 }),
  holds: fc.constantFrom('nothing' as const, 'requests' as const, 'answers' as const),
  delayUs: fc.nat(1500),
  order: fc.nat(50),
});

test('rolled back in place with its disks, from anywhere, with requests in flight', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  const property = fc.asyncProperty(
    fc.nat(1000),
    fc.integer({ min: 1, max: 4 }),
    moment,
    async (seed, vcpus, on) => {
      const guest = { ...plan, seed, vcpus, steps: 900 };
      const untouched = await untouchedEnd(host, dir, guest);
      const { domid, disks } = await bootWithDisks(host, 'guest', dir, guest);
      await reachStep(host, domid, on.at);
      await behave(host, domid, { holds: on.holds, delayUs: on.delayUs, seed: on.order });
      const point = await takePoint(stage, 'guest', disks);
      await behave(host, domid, { delayUs: on.delayUs, seed: on.order });
      // Also beyond its end, where its disks are closed.
      await reachStep(host, domid, Math.min(guest.steps, on.at + on.run));
      const putBack = rewritingHost(host, () => putDisks(disks, point.disks));
      const { putPages } = await rollback(putBack, 'guest', point.image, { keepDisks: true });
      assert.ok(putPages > 0);
      assert.deepEqual(await states(host, domid), ['4', '4']);
      assert.equal(await endOf(host, 'guest', disks, guest), untouched);
      await host.destroy(domid);
    },
  );
  const outcome = await fc.check(property, { numRuns: 12, endOnFailure: true });
  t.diagnostic(`seed ${outcome.seed}, ${outcome.numRuns} rollbacks`);
  assert.ok(!outcome.failed, fc.defaultReportMessage(outcome));
});

test('right after a rollback memory is the image, the disk what it was, and nothing was asked of it', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, { ...plan, steps: 0 });
  await behave(host, domid, { delayUs: 1000 });
  await reachStep(host, domid, 100);
  const point = await takePoint(stage, 'guest', disks);
  await reachStep(host, domid, 600);
  await behave(host, domid, { holds: 'requests' });
  await host.pause(domid);
  await rollback(
    rewritingHost(host, () => putDisks(disks, point.disks)),
    'guest',
    point.image,
    { keepDisks: true },
  );
  assert.equal((await digestDomain(host, 'guest')).digest, (await digestImage(point.image)).digest);
  await behave(host, domid, {});
  await host.unpause(domid);
  await reachStep(host, domid, 900);
});

test('a disk that was replaced meanwhile is opened anew; one that is gone leaves the domain half rewound', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  const untouched = await untouchedEnd(host, dir, plan);
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, plan);
  await reachStep(host, domid, 100);
  const point = await takePoint(stage, 'guest', disks);
  const second = disks[1] ?? '';
  const away = rewritingHost(host, () => renameSync(second, `${second}.away`));
  await assert.rejects(rollback(away, 'guest', point.image, { keepDisks: true }), {
    code: 'CONFIG_INVALID',
    guest: 'paused',
  });
  assert.equal((await host.info(domid)).rewinding, true);
  const replace = rewritingHost(host, () =>
    disks.forEach((disk, index) => {
      copyFileSync(point.disks[index] ?? '', `${disk}.new`);
      renameSync(`${disk}.new`, disk);
    }),
  );
  await rollback(replace, 'guest', point.image, { keepDisks: true });
  assert.equal(await endOf(host, 'guest', disks, plan), untouched);
});

test('a backend that never closes: the rollback is refused in time, and the guest goes on as it was', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  // It does not end meanwhile, however slow the machine is.
  const guest = { ...plan, steps: 20_000 };
  const untouched = await untouchedEnd(host, dir, guest);
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, guest);
  await reachStep(host, domid, 100);
  const point = await takePoint(stage, 'guest', disks);
  await host.setBackend(domid, 1, { neverCloses: true });
  await assert.rejects(rollback(host, 'guest', point.image, { keepDisks: true }), {
    code: 'HOST_UNAVAILABLE',
  });
  const { rewinding, paused } = await host.info(domid);
  assert.deepEqual([rewinding, paused], [undefined, false]);
  assert.deepEqual([...(await states(host, domid)), ...(await states(host, domid, 1))], ['4', '4', '4', '4']);
  await host.setBackend(domid, 1, {});
  assert.equal(await endOf(host, 'guest', disks, guest), untouched);
});

test('a tool that dies while the disks close, or while they are away', async (t) => {
  const stage = await setUp(t);
  const { host, dir } = stage;
  const untouched = await untouchedEnd(host, dir, plan);
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, plan);
  await reachStep(host, domid, 100);
  const point = await takePoint(stage, 'guest', disks);
  await host.setBackend(domid, 0, { holds: 'answers' });
  const first = await openEmbeddedHost('test');
  const lease = await first.acquire(domid, 'rollback');
  await first.holdPaused(lease);
  const closing = assert.rejects(first.rewrite(lease));
  await until('one disk is closed', 2000, async () => (await host.status()).leases.length === 1);
  await first.close();
  await closing;
  await until('the domain is given back', 4000, async () => (await host.status()).leases.length === 0);
  await host.setBackend(domid, 0, {});
  assert.deepEqual([...(await states(host, domid)), ...(await states(host, domid, 1))], ['4', '4', '4', '4']);
  await reachStep(host, domid, 300);
  const second = await openEmbeddedHost('test');
  const held = await second.acquire(domid, 'rollback');
  await second.holdPaused(held);
  await second.rewrite(held);
  await second.close();
  await until('the lease ends', 2000, async () => (await host.status()).leases.length === 0);
  assert.equal((await host.info(domid)).rewinding, true);
  assert.deepEqual(await states(host, domid), ['4', '6']);
  await rollback(
    rewritingHost(host, () => putDisks(disks, point.disks)),
    'guest',
    point.image,
    { keepDisks: true },
  );
  assert.equal(await endOf(host, 'guest', disks, plan), untouched);
});

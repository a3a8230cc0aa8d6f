/**
 * A domain filled anew in place, through what fills new ones: it keeps its id, and runs on from the image as the untouched
 * run went on from there. Lost in the middle it stays paused and never runs half.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { Builder, Lease } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { ImageReader } from '../../src/image/reader.js';
import { fillDomain, ProgressOfRestore } from '../../src/restore/fill.js';
import { closeWorkers, laneCount } from '../../src/worker/pool.js';
import { bootGuest, finalDigest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';

interface Stage {
  readonly host: EmbeddedHost;
  readonly image: string;
}

async function setUp(t: TestContext): Promise<Stage> {
  const host = await startTestHost(t, { memoryMib: 512 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-rewrite-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  return { host, image: join(dir, 'point.dormouse') };
}

async function fill(builder: Builder, image: string): Promise<void> {
  const reader = await ImageReader.open(image, { lanes: laneCount });
  try {
    await fillDomain(builder, reader, { mostPfns: reader.nrPfns }, new ProgressOfRestore(reader, {}));
  } finally {
    reader.close();
  }
}

async function rewriteFrom({ host, image }: Stage, domid: number): Promise<void> {
  const lease = await host.acquire(domid, 'restore');
  try {
    await host.holdPaused(lease);
    await fill(await host.rewrite(lease), image);
  } finally {
    await lease.release();
  }
}

function plan(program: GuestPlan['program'], vcpus: number): GuestPlan {
  return { program, vcpus, seed: 2000 + vcpus, steps: 1500, rate: 3000, memoryMib: 16 };
}

for (const vcpus of [1, 4])
  for (const program of ['idle', 'counter', 'writer', 'churner', 'crasher'] as const)
    test(`${program} on ${vcpus} vCPUs: rewritten while it runs and after its end, it ends the same`, async (t) => {
      const stage = await setUp(t);
      const { host, image } = stage;
      const guest = plan(program, vcpus);
      const untouched = await untouchedDigest(host, guest);
      const domid = await bootGuest(host, 'guest', guest);
      await sleep(20);
      await checkpoint(host, 'guest', image, { mode: 'light' });
      await sleep(60);
      await rewriteFrom(stage, domid);
      await runToEnd(host, 'guest', guest);
      assert.equal((await digestDomain(host, 'guest')).digest, untouched, 'from a running domain');
      await rewriteFrom(stage, domid);
      const [info] = await host.list();
      assert.deepEqual([info?.domid, info?.building, info?.shutdown], [domid, false, null]);
      assert.equal(await finalDigest(host, 'guest', guest), untouched, 'from one that had ended');
      assert.deepEqual(await host.list(), []);
    });

test('a rewritten domain has the digest of the image, and its memory the pages of no other pfn', async (t) => {
  const stage = await setUp(t);
  const { host, image } = stage;
  const guest = plan('churner', 2);
  const domid = await bootGuest(host, 'guest', guest);
  await sleep(20);
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const { memoryKib } = await host.find('guest');
  await sleep(100);
  await host.pause(domid);
  await rewriteFrom(stage, domid);
  assert.equal((await digestDomain(host, 'guest')).digest, (await digestImage(image)).digest);
  assert.equal((await host.find('guest')).paused, true, 'its user had paused it');
  assert.ok(Math.abs((await host.find('guest')).memoryKib - memoryKib) < 1024, 'frames pile up');
});

async function refused(action: () => Promise<unknown>): Promise<void> {
  await assert.rejects(action, { code: 'DOMAIN_WRONG_STATE' });
}

test('lost in the middle a domain stays paused until it is rewritten whole', async (t) => {
  const stage = await setUp(t);
  const { host, image } = stage;
  const guest = plan('writer', 2);
  const untouched = await untouchedDigest(host, guest);
  const domid = await bootGuest(host, 'guest', guest);
  await sleep(20);
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const lost: Lease = await host.acquire(domid, 'restore');
  await host.holdPaused(lost);
  await host.rewrite(lost);
  await lost.release();
  const info = await host.find('guest');
  assert.deepEqual([info.paused, info.running, info.building], [true, false, true]);
  await refused(() => host.unpause(domid));
  await refused(() => host.readState(domid));
  const lease = await host.acquire(domid, 'restore');
  await fill(await host.rewrite(lease), image);
  await lease.release();
  await host.unpause(domid);
  assert.equal(await finalDigest(host, 'guest', guest), untouched);
});

test('a domain that is not held, or has a snapshot, is not rewritten; destroying a half one works', async (t) => {
  const { host } = await setUp(t);
  const domid = await bootGuest(host, 'guest', plan('counter', 1));
  const lease = await host.acquire(domid, 'restore');
  await refused(() => host.rewrite(lease));
  const snapshot = await host.snapshot(lease);
  await host.holdPaused(lease);
  await refused(() => host.rewrite(lease));
  await snapshot.release();
  await host.rewrite(lease);
  await lease.release();
  await host.destroy(domid);
  assert.deepEqual(await host.list(), []);
});

test('what is rewritten counts as written in the log', async (t) => {
  const stage = await setUp(t);
  const { host, image } = stage;
  const domid = await bootGuest(host, 'guest', plan('idle', 1));
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const lease = await host.acquire(domid, 'restore');
  const tracker = await host.tracker(lease);
  await host.holdPaused(lease);
  await tracker.readAndClear();
  await fill(await host.rewrite(lease), image);
  const { nrPfns } = await host.geometry(domid);
  const bits = (await tracker.readAndClear()).reduce(
    (sum, byte) => sum + byte.toString(2).replaceAll('0', '').length,
    0,
  );
  assert.equal(bits, nrPfns);
  await lease.release();
});

/** Copy-on-write snapshots: frozen content, frames held back, short pauses. */
import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { native } from '../../src/addon.js';
import {
  boot,
  digest,
  hv,
  newMachine,
  openView,
  reachSteps,
  rebuild,
  take,
  takeSnapshot,
  tool,
  unpause,
  until,
} from '../support/embedded.js';

void test('a snapshot stays as it was under unthrottled writers', async () => {
  using m = newMachine(16384);
  boot(m, 1, 4, { program: 'writer', pages: 4096 });
  unpause(m, 1);
  await reachSteps(m, 1, 3000);
  const snapshot = hv.snapshot(m.id, 1);
  const read = () => {
    const view = openView(m, 1, 'snapshot', snapshot.epoch, false);
    const hash = digest(take(view, snapshot.geometry, snapshot.vcpus, snapshot.sharedInfo));
    tool.closeView(view);
    return hash;
  };
  const atOnce = read();
  await reachSteps(m, 1, 200000);
  assert.equal(read(), atOnce);
  assert.ok(hv.cowPages(m.id, 1) > 2000, 'the writers went over most pages meanwhile');
  hv.pause(m.id, 1);
  assert.equal(read(), atOnce);
  assert.equal(hv.releaseSnapshot(m.id, 1, snapshot.epoch), true);
  assert.equal(hv.releaseSnapshot(m.id, 1, snapshot.epoch), false);
  assert.notEqual(digest(takeSnapshot(m, 1)), atOnce, 'the guest itself went on');
});

for (const program of ['writer', 'churner'] as const)
  void test(`${program}: what was read while four vCPUs wrote is a consistent point in time`, async () => {
    const steps = 60000;
    using m = newMachine(16384);
    boot(m, 1, 4, { program, steps, seed: 11 });
    unpause(m, 1);
    let domid = 1;
    // Each generation is built from a snapshot of the running one before it.
    for (const at of [500, 5000, 15000, 30000]) {
      await reachSteps(m, domid, at);
      const taken = takeSnapshot(m, domid);
      rebuild(m, domid + 1, taken);
      if (domid > 1) hv.destroy(m.id, domid);
      unpause(m, ++domid);
    }
    await reachSteps(m, 1, steps);
    await reachSteps(m, domid, steps);
    assert.equal(digest(takeSnapshot(m, domid)), digest(takeSnapshot(m, 1)));
  });

void test('a page that is read and first written at the same moment is read as it was', async () => {
  using m = newMachine(8192);
  boot(m, 1, 2, { program: 'writer', pages: 512 });
  unpause(m, 1);
  const pfns = Array.from({ length: 512 }, (_, pfn) => pfn);
  let copied = 0;
  for (let round = 0; round < 400 && (round < 100 || copied < 5000); round++) {
    const { epoch } = hv.snapshot(m.id, 1);
    const consuming = openView(m, 1, 'snapshot', epoch, true);
    const again = openView(m, 1, 'snapshot', epoch, false);
    const batches: Buffer[] = [];
    for (let first = 0; first < 512; first += 128) {
      batches.push(tool.readPages(consuming, pfns.slice(first, first + 128)));
      if (round % 2) await sleep(0); // lets the writers in, where there are too few processors
    }
    const read = Buffer.concat(batches);
    // What the writers copied aside can be read again, and is what the page held at the snapshot.
    for (const pfn of pfns) {
      let aside: Buffer;
      try {
        aside = tool.readPages(again, [pfn]);
      } catch {
        continue;
      }
      copied++;
      const page = read.subarray(pfn * 4096, (pfn + 1) * 4096);
      assert.ok(aside.equals(page), `round ${String(round)}: pfn ${String(pfn)} is torn`);
    }
    for (const view of [consuming, again]) tool.closeView(view);
    hv.releaseSnapshot(m.id, 1, epoch);
    await sleep(0);
  }
  assert.ok(copied >= 5000, `only ${String(copied)} pages were copied aside`);
});

void test('a consuming view gives each page once', () => {
  using m = newMachine(8192);
  boot(m, 1, 1, { program: 'idle' });
  const { epoch } = hv.snapshot(m.id, 1);
  const view = openView(m, 1, 'snapshot', epoch, true);
  native(() => tool.readPages(view, [100, 101]));
  assert.throws(() => native(() => tool.readPages(view, [101])), {
    code: 'GUEST_MEMORY_UNREADABLE',
    place: { pfn: 101 },
  });
  tool.closeView(view);
  assert.throws(() => native(() => hv.snapshot(m.id, 1)), { code: 'DOMAIN_WRONG_STATE' });
});

void test('a view of a snapshot that was dropped is an error, not newer memory', async () => {
  using m = newMachine(8192);
  boot(m, 1, 1, { program: 'writer', pages: 1024 });
  unpause(m, 1);
  const old = hv.snapshot(m.id, 1);
  const view = openView(m, 1, 'snapshot', old.epoch);
  hv.releaseSnapshot(m.id, 1, old.epoch);
  const next = hv.snapshot(m.id, 1);
  await reachSteps(m, 1, hv.progress(m.id, 1).steps.reduce((a, b) => a + b, 0) + 20000);
  const pfns = Array.from({ length: 1024 }, (_, pfn) => pfn);
  assert.throws(() => native(() => tool.readPages(view, pfns)), { code: 'GUEST_MEMORY_UNREADABLE' });
  tool.closeView(view);
  hv.releaseSnapshot(m.id, 1, next.epoch);
});

void test('of what was copied aside 32 MiB stay allocated, for the next snapshot', async () => {
  using m = newMachine(32768);
  boot(m, 1, 2, { program: 'writer', pages: 20000, fillPercent: 100 });
  const { cowFd } = hv.domainLayout(m.id, 1);
  const allocated = (): number => (statSync(`/proc/self/fd/${String(cowFd)}`).blocks * 512) / 2 ** 20;
  const first = hv.snapshot(m.id, 1);
  unpause(m, 1);
  await until('more is copied', () => allocated() > 40);
  hv.pause(m.id, 1);
  hv.releaseSnapshot(m.id, 1, first.epoch);
  // The next one waits for what is given back beside the caller.
  const { epoch } = hv.snapshot(m.id, 1);
  assert.equal(allocated(), 32);
  hv.unpause(m.id, 1);
  await until('some is copied', () => hv.cowPages(m.id, 1) > 1000);
  hv.pause(m.id, 1);
  hv.releaseSnapshot(m.id, 1, epoch);
  assert.equal(allocated(), 32);
});

void test('frames freed while a snapshot names them are held back until it is released', async () => {
  using m = newMachine(4096);
  boot(m, 1, 2, { program: 'churner' });
  unpause(m, 1);
  await reachSteps(m, 1, 100);
  const snapshot = hv.snapshot(m.id, 1);
  await until('frames held back', () => hv.machineInfo(m.id).quarantinedFrames > 20);
  hv.pause(m.id, 1);
  const { freeFrames, quarantinedFrames } = hv.machineInfo(m.id);
  hv.releaseSnapshot(m.id, 1, snapshot.epoch);
  const after = hv.machineInfo(m.id);
  assert.equal(after.quarantinedFrames, 0);
  assert.equal(after.freeFrames, freeFrames + quarantinedFrames);
  hv.destroy(m.id, 1);
  assert.equal(hv.machineInfo(m.id).freeFrames, 4096 - 16);
});

void test('suspended, paused and just built domains can be snapshotted', async () => {
  using m = newMachine(16384);
  boot(m, 1, 2, { program: 'churner', steps: 3000 });
  const atBoot = takeSnapshot(m, 1);
  assert.equal(atBoot.pauseNs, 0);
  unpause(m, 1);
  await reachSteps(m, 1, 3000);
  const running = digest(takeSnapshot(m, 1));
  hv.pause(m.id, 1);
  assert.equal(digest(takeSnapshot(m, 1)), running);
  hv.unpause(m.id, 1);
  hv.shutdownRequest(m.id, 1, 'suspend');
  assert.equal(digest(takeSnapshot(m, 1)), running);
  rebuild(m, 2, takeSnapshot(m, 1));
  assert.equal(digest(takeSnapshot(m, 2)), running, 'a domain that was built and never ran');
  rebuild(m, 3, atBoot);
  unpause(m, 3);
  await reachSteps(m, 3, 3000);
  assert.equal(digest(takeSnapshot(m, 3)), running);
});

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

for (const gib of [1, 4])
  void test(`the pause of a ${String(gib)} GiB guest that writes 50,000 pages a second`, async (t) => {
    const pages = gib * 262144;
    using m = newMachine(pages + 16384);
    boot(m, 1, 1, { program: 'writer', pages, rate: 50000, fillPercent: 1 });
    unpause(m, 1);
    await sleep(100);
    const pausesMs: number[] = [];
    for (let i = 0; i < 200; i++) {
      const { epoch, pauseNs } = hv.snapshot(m.id, 1);
      pausesMs.push(pauseNs / 1e6);
      await sleep(3);
      assert.ok(hv.releaseSnapshot(m.id, 1, epoch));
    }
    const [p50, p99] = [quantile(pausesMs, 0.5), quantile(pausesMs, 0.99)];
    t.diagnostic(`pause p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms over 200 snapshots`);
    assert.ok((hv.progress(m.id, 1).steps[0] ?? 0) > 10000, 'it wrote all along');
    assert.ok(p50 <= 0.25, `p50 ${String(p50)} ms`);
  });

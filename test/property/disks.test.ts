/**
 * The oracle with disks: a guest that reads and writes them, disturbed anyhow while its backend is late, silent or out of order,
 * ends in the memory and on the disk of an untouched run. A guest that finds its disk older or newer than its memory crashes.
 */
import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestOptions } from '../../src/host/embedded/hypervisor.js';
import {
  behave,
  checkDisturbed,
  copyOf,
  dir,
  newDisk,
  type Running,
  start,
} from '../support/disturbed_guests.js';
import {
  addDisks,
  boot,
  digest,
  hv,
  newMachine,
  openView,
  reachSteps,
  rebuild,
  takeSnapshot,
  tool,
  unpause,
  type Taken,
  type TestMachine,
} from '../support/embedded.js';

const startDisker = (m: TestMachine, vcpus: number, guest: Partial<GuestOptions>, disks: number[]): Running =>
  start(m, vcpus, { program: 'disker', ...guest }, { disks, networks: 0 });

test('any guest with disks, disturbed anyhow, ends with the memory and disks of one left alone', async (t) => {
  const disks = fc.array(fc.integer({ min: 128, max: 900 }), { minLength: 1, maxLength: 3 });
  t.diagnostic(
    await checkDisturbed(
      'disker',
      disks.map((each) => ({ disks: each, networks: 0 })),
      25,
    ),
  );
});

async function crashTextOf(running: Running): Promise<string> {
  await assert.rejects(reachSteps(running.m, running.domid, 1e9));
  return hv.domainInfo(running.m.id, running.domid).crashText;
}

test('a disk that is older or newer than memory, or lost a write, is told', async () => {
  using m = newMachine(16384, 3);
  const options = { seed: 11, pages: 1024 };
  const old = startDisker(m, 1, options, [128]);
  await reachSteps(m, 1, 400);
  hv.pause(m.id, 1);
  const early = { taken: takeSnapshot(m, 1), disks: copyOf(old.disks) };
  hv.unpause(m.id, 1);
  await reachSteps(m, 1, 3000);
  hv.pause(m.id, 1);
  const late = { taken: takeSnapshot(m, 1), disks: copyOf(old.disks) };
  const run = (domid: number, taken: Taken, disks: readonly string[]): Running => {
    const copies = copyOf(disks);
    rebuild(m, domid, taken, copies);
    unpause(m, domid);
    return { m, domid, disks: copies, networks: 0 };
  };
  assert.match(await crashTextOf(run(2, early.taken, late.disks)), /BAD: the disk is newer than memory/u);
  assert.match(await crashTextOf(run(3, late.taken, early.disks)), /BAD: the disk is older than memory/u);
  const lost = copyOf(late.disks);
  const bytes = readFileSync(lost[0] ?? '');
  for (let at = 16; at < bytes.length; at += 4096) bytes.fill(0, at, at + 8);
  writeFileSync(lost[0] ?? '', bytes);
  assert.match(await crashTextOf(run(4, late.taken, lost)), /BAD: the disk lost a write/u);
  assert.equal(hv.domainInfo(m.id, 1).shutdown, null);
  const whole = run(5, late.taken, late.disks);
  await reachSteps(m, 5, 6000);
  hv.destroy(m.id, whole.domid);
});

const bit = (bitmap: Buffer, pfn: number): boolean => (((bitmap[pfn >> 3] ?? 0) >> (pfn & 7)) & 1) === 1;

function readAll(m: TestMachine, domid: number): Buffer[] {
  const view = openView(m, domid, 'live');
  const { nrPfns } = hv.domainInfo(m.id, domid);
  const pages: Buffer[] = [];
  for (let first = 0; first < nrPfns; first += 512) {
    const pfns = Array.from({ length: Math.min(512, nrPfns - first) }, (_, i) => first + i);
    const read = tool.readPages(view, pfns);
    pfns.forEach((_, i) => pages.push(read.subarray(i * 4096, (i + 1) * 4096)));
  }
  tool.closeView(view);
  return pages;
}

/** Pages that are other ones. */
const changed = (before: readonly Buffer[], now: readonly Buffer[]): number[] =>
  now.flatMap((page, pfn) => (before[pfn]?.equals(page) ? [] : [pfn]));

test('what backends write past the log is named to who stops the domain, also what they have yet to write', async () => {
  using m = newMachine(8192, 4);
  const guest = startDisker(m, 2, { pages: 1200, seed: 3, rate: 4000 }, [300]);
  hv.setUnlogged(m.id, 1, { gained: false, lost: false, retyped: false, granted: true });
  let missed = 0;
  let late = 0;
  for (let round = 0; round < 12; round++) {
    hv.pause(m.id, 1);
    behave(guest, { holds: 'requests' });
    await sleep(3);
    hv.logDirtyOn(m.id, 1);
    const before = readAll(m, 1);
    behave(guest, { holds: round % 2 ? 'answers' : 'nothing', delayUs: 300, seed: round + 1 });
    hv.unpause(m.id, 1);
    await sleep(15);
    hv.pause(m.id, 1);
    const named = hv.logDirtyPeek(m.id, 1);
    const first = readAll(m, 1);
    await sleep(6);
    const now = readAll(m, 1);
    late += changed(first, now).length;
    const logged = hv.logDirtyReadAndClear(m.id, 1);
    for (const pfn of changed(before, now)) {
      assert.ok(bit(named, pfn), `round ${round}: pfn ${pfn}`);
      missed += bit(logged, pfn) ? 0 : 1;
    }
    hv.logDirtyOff(m.id, 1);
    hv.unpause(m.id, 1);
  }
  assert.ok(missed > 0 && late > 0, `${missed} pages past the log, ${late} written in the pause`);
});

const edges = [0n, 1n, 4n, 31n, 32n, 33n, 0xffn, 0xffff_ffffn, 1n << 32n, (1n << 64n) - 1n] as const;
const junk = fc.array(
  fc.record({
    page: fc.nat(4),
    // Where the state, the ring's indices and the first requests are, or anywhere.
    word: fc.oneof(fc.nat(20), fc.nat(511)),
    value: fc.oneof(fc.constantFrom(...edges), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
  }),
  { minLength: 1, maxLength: 6 },
);

test('whatever an image holds of drivers, rings and grants, the machine and its other domains stand', async (t) => {
  using m = newMachine(16384, 8);
  const guest = startDisker(m, 2, { pages: 1000, seed: 4, rate: 20_000 }, [128]);
  boot(m, 50, 1, { program: 'idle', pages: 700 });
  const bystander = digest(takeSnapshot(m, 50));
  await reachSteps(m, 1, 100);
  behave(guest, { holds: 'answers' });
  await sleep(5);
  hv.pause(m.id, 1);
  const taken = takeSnapshot(m, 1);
  const copies = copyOf(guest.disks);
  const text = taken.pages.get(2) ?? Buffer.alloc(4096);
  const [heap, driver, grants] = [184, 216, 224].map((at) => Number(text.readBigUInt64LE(at)));
  const places = [driver, (driver ?? 0) + 1, grants, heap, (heap ?? 0) + 1].map(Number);
  let crashed = 0;
  const property = fc.asyncProperty(junk, async (words) => {
    const pages = new Map(taken.pages);
    for (const { page, word, value } of words) {
      const pfn = places[page] ?? 0;
      const changedPage = Buffer.from(pages.get(pfn) ?? Buffer.alloc(4096));
      changedPage.writeBigUInt64LE(value, word * 8);
      pages.set(pfn, changedPage);
    }
    rebuild(m, 2, { ...taken, pages }, copies);
    unpause(m, 2);
    await sleep(4);
    crashed += hv.domainInfo(m.id, 2).shutdown === 'crash' ? 1 : 0;
    hv.destroy(m.id, 2);
  });
  const outcome = await fc.check(property, { numRuns: 150 });
  t.diagnostic(`seed ${outcome.seed}, ${crashed} of ${outcome.numRuns} crashed`);
  assert.ok(!outcome.failed, fc.defaultReportMessage(outcome));
  assert.ok(crashed > 0);
  assert.equal(digest(takeSnapshot(m, 50)), bystander);
});

test('a disk is of whole pages, and of the size that it had', () => {
  using m = newMachine(4096, 3);
  hv.createShell(m.id, { domid: 1, type: 'pv', vcpus: 1, maxPages: 1024 });
  const odd = newDisk(1);
  writeFileSync(odd, 'not a page');
  assert.throws(() => addDisks(m, 1, [odd]), { code: 'CONFIG_INVALID' });
  assert.throws(() => addDisks(m, 1, [join(dir, 'none')]), { code: 'CONFIG_INVALID' });
  const disk = newDisk(64);
  boot(m, 2, 1, { program: 'disker', pages: 1024 }, [disk]);
  truncateSync(disk, 32 * 4096);
  assert.throws(() => unpause(m, 2), { code: 'DOMAIN_WRONG_STATE' });
  truncateSync(disk, 64 * 4096);
  unpause(m, 2);
});

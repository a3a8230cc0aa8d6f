/** Run state, shutdown handshake, page types, populate, log-dirty and what is refused. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
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
  tableLevel,
  takeSnapshot,
  takeSuspended,
  tool,
  unpause,
  until,
  words,
  type TestMachine,
} from '../support/embedded.js';

const fails = (code: string, call: () => unknown, pfn?: number) => {
  assert.throws(() => native(call), pfn === undefined ? { code } : { code, place: { pfn } });
};

/** Entries and a hash of every page, read live. */
function readAll(m: TestMachine, domid: number): { entries: bigint[]; hashes: string[] } {
  const { nrPfns } = hv.domainInfo(m.id, domid);
  const view = openView(m, domid, 'live');
  const entries: bigint[] = [];
  const hashes: string[] = [];
  for (let first = 0; first < nrPfns; first += 512) {
    const pfns = Array.from({ length: Math.min(512, nrPfns - first) }, (_, i) => first + i);
    entries.push(...words(tool.readEntries(view, first, pfns.length)));
    const pages = tool.readPages(view, pfns);
    for (let i = 0; i < pfns.length; i++)
      hashes.push(
        createHash('md5')
          .update(pages.subarray(i * 4096, (i + 1) * 4096))
          .digest('hex'),
      );
  }
  tool.closeView(view);
  return { entries, hashes };
}

const bit = (bitmap: Buffer, pfn: number): boolean => (((bitmap[pfn >> 3] ?? 0) >> (pfn & 7)) & 1) === 1;

for (const program of ['writer', 'churner'] as const)
  void test(`log-dirty misses no change (${program}, four vCPUs)`, async () => {
    using m = newMachine(8192);
    boot(m, 1, 4, { program, rate: 20000, workingSetPages: 200 });
    unpause(m, 1);
    hv.pause(m.id, 1);
    hv.logDirtyOn(m.id, 1);
    fails('DOMAIN_WRONG_STATE', () => hv.logDirtyOn(m.id, 1));
    let before = readAll(m, 1);
    let changes = 0;
    for (let round = 0; round < 15; round++) {
      hv.unpause(m.id, 1);
      await sleep(5);
      const early = hv.logDirtyPeek(m.id, 1);
      await sleep(5);
      hv.pause(m.id, 1);
      const dirty = hv.logDirtyReadAndClear(m.id, 1);
      const after = readAll(m, 1);
      for (let pfn = 0; pfn < after.hashes.length; pfn++) {
        assert.ok(!bit(early, pfn) || bit(dirty, pfn), 'a peek clears nothing');
        if (after.hashes[pfn] === before.hashes[pfn] && after.entries[pfn] === before.entries[pfn]) continue;
        changes++;
        assert.ok(bit(dirty, pfn), `round ${String(round)}: pfn ${String(pfn)} changed unseen`);
      }
      assert.ok(hv.logDirtyReadAndClear(m.id, 1).every((byte) => byte === 0));
      if (program === 'writer') {
        const marked = after.hashes.filter((_, pfn) => bit(dirty, pfn)).length;
        assert.ok(marked <= 200, `${String(marked)} pages marked of a working set of 200`);
      }
      before = after;
    }
    assert.ok(changes > 300, 'the guest changed memory');
    hv.logDirtyOff(m.id, 1);
    fails('DOMAIN_WRONG_STATE', () => hv.logDirtyPeek(m.id, 1));
  });

void test('the suspend handshake: ack, then shutdown; resumed in place the guest goes on', async () => {
  using m = newMachine(8192);
  boot(m, 1, 2, { program: 'counter' });
  hv.shutdownRequest(m.id, 1, 'suspend');
  assert.equal(hv.domainInfo(m.id, 1).shutdown, null, 'a paused guest cannot answer');
  assert.equal(hv.shutdownCancel(m.id, 1), true);
  assert.equal(hv.shutdownCancel(m.id, 1), false);
  unpause(m, 1);
  await reachSteps(m, 1, 1000);
  fails('DOMAIN_WRONG_STATE', () => hv.resumeInPlace(m.id, 1));
  fails('DOMAIN_WRONG_STATE', () => hv.getVcpu(m.id, 1, 0));
  hv.shutdownRequest(m.id, 1, 'suspend');
  await until('events', () => m.events.length >= 2);
  assert.deepEqual(m.events, [
    { domid: 1, event: 'suspend-ack', reason: null },
    { domid: 1, event: 'shutdown', reason: 'suspend' },
  ]);
  const info = hv.domainInfo(m.id, 1);
  assert.deepEqual([info.shutdown, info.paused, info.running], ['suspend', false, false]);
  const context = hv.getVcpu(m.id, 1, 0);
  assert.deepEqual(hv.frames(m.id, 1, [1]), [Number(context.readBigUInt64LE(616))]);
  const { counters } = hv.progress(m.id, 1);
  hv.resumeInPlace(m.id, 1);
  await reachSteps(m, 1, Math.max(...counters) + 1000);
  assert.equal(hv.domainInfo(m.id, 1).shutdown, null);
});

void test('a deaf guest never answers, yet a light snapshot of it restores', async () => {
  using m = newMachine(8192);
  boot(m, 1, 1, { program: 'counter', deaf: true });
  unpause(m, 1);
  hv.shutdownRequest(m.id, 1, 'suspend');
  await sleep(50);
  assert.equal(hv.domainInfo(m.id, 1).shutdown, null);
  assert.equal(m.events.length, 0);
  const { vcpus, ...taken } = takeSnapshot(m, 1);
  rebuild(m, 2, { ...taken, vcpus });
  const at = Number(vcpus[0]?.readBigUInt64LE(520));
  unpause(m, 2);
  await reachSteps(m, 2, at + 1000);
});

void test('crasher: shuts down with reason crash at its step', async () => {
  using m = newMachine(8192);
  boot(m, 1, 2, { program: 'crasher', crashAt: 5000 });
  unpause(m, 1);
  await until('crash event', () => m.events.length > 0);
  assert.deepEqual(m.events, [{ domid: 1, event: 'shutdown', reason: 'crash' }]);
  assert.equal(hv.progress(m.id, 1).steps[0], 5000);
  assert.match(hv.domainInfo(m.id, 1).crashText, /crasher/);
});

void test('idle blocks; poweroff and reboot end a guest', async () => {
  using m = newMachine(8192);
  for (const [domid, reason] of [
    [1, 'poweroff'],
    [2, 'reboot'],
  ] as const) {
    boot(m, domid, 2, { program: 'idle', pages: 1024 });
    assert.equal(hv.domainInfo(m.id, domid).paused, true);
    unpause(m, domid);
    await until('blocked', () => hv.domainInfo(m.id, domid).blocked);
    hv.shutdownRequest(m.id, domid, reason);
    assert.equal(hv.domainInfo(m.id, domid).shutdown, reason);
  }
  assert.deepEqual(hv.domids(m.id), [1, 2]);
  hv.destroy(m.id, 1);
  fails('DOMAIN_NOT_FOUND', () => hv.domainInfo(m.id, 1));
});

void test('pause is counted and stops all vCPUs', async () => {
  using m = newMachine(8192);
  boot(m, 1, 4, { program: 'writer' });
  unpause(m, 1);
  fails('DOMAIN_WRONG_STATE', () => hv.unpause(m.id, 1));
  await reachSteps(m, 1, 100);
  hv.pause(m.id, 1);
  hv.pause(m.id, 1);
  const { steps } = hv.progress(m.id, 1);
  hv.unpause(m.id, 1);
  await sleep(20);
  assert.deepEqual(hv.progress(m.id, 1).steps, steps);
  hv.unpause(m.id, 1);
  await until('it goes on', () => hv.progress(m.id, 1).steps.every((s, i) => s > (steps[i] ?? 0)));
});

void test('frames: shuffled, zeroed when handed out again, all or nothing', async () => {
  using m = newMachine(4096);
  boot(m, 1, 1, { program: 'writer', steps: 3000 });
  unpause(m, 1);
  await reachSteps(m, 1, 3000);
  const mfns = hv.frames(
    m.id,
    1,
    Array.from({ length: 2048 }, (_, i) => i),
  );
  assert.equal(new Set(mfns).size, 2048);
  assert.ok(mfns.filter((mfn, pfn) => mfn === pfn).length < 20);
  assert.ok(mfns.filter((mfn, pfn) => pfn > 0 && mfn === (mfns[pfn - 1] ?? 0) + 1).length < 20);
  hv.destroy(m.id, 1);
  const { freeFrames } = hv.machineInfo(m.id);
  hv.createShell(m.id, { domid: 2, type: 'pvh', vcpus: 1, maxPages: 8192 });
  hv.setGeometry(m.id, 2, { nrPfns: 8192, guestWidth: 0, p2mFrames: [], p2mGeneration: 0 });
  fails('NO_MEMORY', () => {
    hv.populate(m.id, 2, [
      [0, 10],
      [100, 4080],
    ]);
  });
  assert.equal(hv.machineInfo(m.id).freeFrames, freeFrames - 1, 'the shared info page is all it has');
  fails('DOMAIN_WRONG_STATE', () => {
    hv.populate(m.id, 2, [[8000, 193]]);
  });
  hv.populate(m.id, 2, [[0, 4000]]);
  fails(
    'DOMAIN_WRONG_STATE',
    () => {
      hv.populate(m.id, 2, [
        [4000, 5],
        [3999, 1],
      ]);
    },
    3999,
  );
  assert.deepEqual(hv.frames(m.id, 2, [4000]), [null]);
  const zero = createHash('md5').update(Buffer.alloc(4096)).digest('hex');
  assert.ok(readAll(m, 2).hashes.every((hash) => hash === zero));
});

void test('page types: validated, pinned, and kept apart from writable', () => {
  using m = newMachine(16384);
  boot(m, 1, 1, { program: 'idle' });
  const booted = takeSnapshot(m, 1);
  assert.equal(booted.types[7], 0x8 | 4, 'the L4 is pinned');
  assert.equal(booted.types[6], 0x8 | 4, 'so is the user L4');
  assert.equal(booted.types.filter((type) => tableLevel(type) === 1).length, 4 + 1);
  const build = (domid: number, change: (pages: Map<number, Buffer>) => void) => {
    const pages = new Map([...booted.pages].map(([pfn, page]) => [pfn, Buffer.from(page)]));
    change(pages);
    return () => {
      rebuild(m, domid, { ...booted, pages });
    };
  };
  const l1 = booted.types.findIndex((type) => tableLevel(type) === 1);
  const l2 = booted.types.findIndex((type) => tableLevel(type) === 2);
  const set = (pages: Map<number, Buffer>, pfn: number, index: number, entry: bigint) =>
    pages.get(pfn)?.writeBigUInt64LE(entry, index * 8);
  fails(
    'PAGE_TABLE_INVALID',
    build(2, (p) => set(p, l1, 100, (BigInt(l1) << 12n) | 3n)),
    l1,
  );
  fails(
    'PAGE_TABLE_INVALID',
    build(3, (p) => set(p, l2, 500, (200n << 12n) | 0x83n)),
    l2,
  );
  fails(
    'PAGE_TABLE_INVALID',
    build(4, (p) => set(p, l2, 500, (7n << 12n) | 0x3n)),
    l2,
  );
  build(5, (p) => set(p, l1, 100, (BigInt(l1) << 12n) | 1n))();
  assert.equal(takeSnapshot(m, 5).types[7], 0xc);
  const l4Mfn = BigInt(hv.frames(m.id, 5, [7])[0] ?? 0);
  const raw = openView(m, 5, 'live');
  const l4 = words(tool.readPages(raw, [7]));
  tool.closeView(raw);
  assert.ok(
    l4.slice(256, 272).every((entry) => (entry & 1n) === 1n),
    "Xen's own slots are filled",
  );
  assert.equal((l4[272] ?? 0n) & 1n, 1n);
  assert.ok(l4Mfn > 0n);
  hv.unpin(m.id, 5, 7);
  fails('DOMAIN_WRONG_STATE', () => {
    hv.unpin(m.id, 5, 7);
  });
  const view = openView(m, 5, 'live');
  const types = words(tool.readEntries(view, 0, 1024)).map((entry) => entry >> 60n);
  tool.closeView(view);
  assert.deepEqual(
    [...types].flatMap((type, pfn) => (type ? [pfn] : [])),
    [6],
    'unpinned down to the last',
  );
});

void test('a foreign frame planted in a validated table is found by whoever translates it', () => {
  using m = newMachine(8192);
  boot(m, 1, 1, { program: 'idle', pages: 1024 });
  boot(m, 2, 1, { program: 'idle', pages: 1024 });
  const l1 = takeSnapshot(m, 1).types.findIndex((type) => tableLevel(type) === 1);
  const foreign = hv.frames(m.id, 2, [50])[0] ?? 0;
  hv.poke(m.id, 1, l1, 300, (BigInt(foreign) << 12n) | 1n);
  assert.throws(() => takeSnapshot(m, 1), /foreign mfn/);
});

void test('a guest that is not one of ours is held, answered for, and never run', async () => {
  using m = newMachine(8192);
  boot(m, 1, 2, { program: 'counter', pages: 1024 });
  unpause(m, 1);
  await reachSteps(m, 1, 10);
  hv.shutdownRequest(m.id, 1, 'suspend');
  const taken = takeSuspended(m, 1);
  taken.pages.get(2)?.write('some other kernel');
  rebuild(m, 2, taken);
  assert.deepEqual(hv.geometry(m.id, 2), taken.geometry);
  fails('HOST_LACKS', () => {
    hv.unpause(m.id, 2);
  });
  assert.equal(hv.domainInfo(m.id, 2).paused, true);
  assert.equal(digest(takeSnapshot(m, 2)), digest(taken));
  hv.createShell(m.id, { domid: 3, type: 'pvh', vcpus: 1, maxPages: 64 });
  hv.setGeometry(m.id, 3, { nrPfns: 64, guestWidth: 0, p2mFrames: [], p2mGeneration: 0 });
  hv.populate(m.id, 3, [[0, 64]]);
  hv.finish(m.id, 3);
  fails('HOST_LACKS', () => {
    hv.unpause(m.id, 3);
  });
  assert.deepEqual(hv.snapshot(m.id, 3).geometry.p2mFrames, []);
});

void test('a restored guest publishes its p2m anew and notices what a bad restore left behind', async () => {
  using m = newMachine(16384);
  boot(m, 1, 1, { program: 'counter', pages: 1024 });
  unpause(m, 1);
  await reachSteps(m, 1, 10);
  const taken = takeSnapshot(m, 1);
  rebuild(m, 2, taken);
  unpause(m, 2);
  const { p2mFrames, p2mGeneration } = hv.geometry(m.id, 2);
  assert.deepEqual(p2mFrames, taken.geometry.p2mFrames);
  assert.ok(p2mGeneration > taken.geometry.p2mGeneration);
  const sharedInfo = hv.readSharedInfo(m.id, 2);
  assert.notEqual(sharedInfo.readBigUInt64LE(3096), 0n, 'the three-level tree is there again');
  assert.equal(sharedInfo.readBigUInt64LE(3112), hv.snapshot(m.id, 2).vcpus[0]?.readBigUInt64LE(4984 + 24));
  const pages = new Map(taken.pages);
  const leaf = Buffer.from(pages.get(taken.geometry.p2mFrames[1] ?? 0) ?? Buffer.alloc(0));
  leaf.copy(leaf, 8 * 10, 8 * 11, 8 * 12);
  pages.set(taken.geometry.p2mFrames[1] ?? 0, leaf);
  rebuild(m, 3, { ...taken, pages });
  unpause(m, 3);
  await until('crash', () => hv.domainInfo(m.id, 3).shutdown === 'crash');
  assert.match(hv.domainInfo(m.id, 3).crashText, /p2m list/);
});

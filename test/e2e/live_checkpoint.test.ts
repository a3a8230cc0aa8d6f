/** Checkpoints and `save -c` on a host without copy-on-write, with its dirty log and without. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestImage } from '../../src/digest/digest.js';
import type { Host } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { tableLevel, words } from '../support/embedded.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { plainHost, type TrackerKind } from '../support/plain_host.js';
import { assertSame, lentMark, readOut, type Readout } from '../support/readout.js';
import { embeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { MemoryHandle } from '../../src/handle.js';

const programs: readonly GuestPlan['program'][] = ['idle', 'counter', 'writer', 'churner', 'crasher'];
const trackers: readonly TrackerKind[] = ['log-dirty', 'content'];
const noObjects = {
  memories: 0,
  writers: 0,
  readers: 0,
  digests: 0,
  trackers: 0,
  livePasses: 0,
  rewinds: 0,
  diffs: 0,
  pageFiles: 0,
};

async function setUp(t: TestContext, memoryMib = 512): Promise<{ host: EmbeddedHost; dir: string }> {
  const host = await startTestHost(t, { memoryMib });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-live-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  return { host, dir };
}

/** No trace is left of an operation, and the guest runs. */
async function assertGivenBack(host: EmbeddedHost, name: string): Promise<void> {
  const info = await host.find(name);
  assert.equal(info.shutdown, null);
  assert.equal(info.paused, false);
  const { trackers: on, leases } = await host.status();
  assert.deepEqual([on, leases.length], [0, 0]);
  assert.deepEqual(steps().openObjects(), noObjects);
}

const suspendSaves = {
  cooperative: async (host: Host, name: string, image: string) => {
    const { consistency } = await checkpoint(host, name, image, { mode: 'cooperative' });
    assert.equal(consistency, 'suspend-point');
  },
  saveAndResume: async (host: Host, name: string, image: string) => {
    await save(host, name, image, { then: 'resume' });
  },
} as const;

/** Steps a second. The crasher must still be there when the live passes are done: on a busy machine it has to be slower. */
function ratesOf(program: GuestPlan['program']): readonly number[] {
  return program === 'crasher' ? [300, 60, 20] : [4000];
}

/** Tries with one rate after the other until the guest does not crash under the operation. */
async function withRates(rates: readonly number[], body: (rate: number) => Promise<void>): Promise<void> {
  for (const [at, rate] of rates.entries())
    try {
      await body(rate);
      return;
    } catch (thrown) {
      const crashed = thrown instanceof Error && thrown.message.includes('has shut down (crash)');
      if (!crashed || at === rates.length - 1) throw thrown;
    }
}

for (const tracker of trackers)
  for (const vcpus of [1, 4])
    for (const program of programs)
      test(`${program} on ${vcpus} vCPUs, ${tracker}: ends the same`, async (t) => {
        const { host, dir } = await setUp(t);
        const plain = plainHost(host, { tracker });
        await withRates(ratesOf(program), async (rate) => {
          const guest: GuestPlan = { program, vcpus, seed: 40 + vcpus, steps: 600, rate, memoryMib: 16 };
          const untouched = await untouchedDigest(host, guest);
          for (const [kind, take] of Object.entries(suspendSaves)) {
            const name = `${kind}-${rate}`;
            await bootGuest(host, name, guest);
            await sleep(40);
            const image = join(dir, name);
            await take(plain, name, image);
            assert.equal(await finalDigest(host, name, guest), untouched, `${name}: the guest went on`);
            await restore(host, image, { paused: false });
            assert.equal(await finalDigest(host, name, guest), untouched, `${name}: restored`);
          }
          const name = `light-${rate}`;
          await bootGuest(host, name, guest);
          await sleep(40);
          const result = await checkpoint(plain, name, join(dir, name), { mode: 'light' });
          assert.equal(result.consistency, 'paused');
          assert.equal(await finalDigest(host, name, guest), untouched, 'light: the guest went on');
          assert.deepEqual(steps().openObjects(), noObjects);
        });
      });

test('a paused guest, which cannot suspend itself, is not saved but can be checkpointed', async (t) => {
  const { host, dir } = await setUp(t);
  await bootGuest(host, 'held', {
    program: 'counter',
    vcpus: 1,
    seed: 1,
    steps: 600,
    rate: 4000,
    memoryMib: 8,
  });
  await host.pause((await host.find('held')).domid);
  const plain = plainHost(host, { tracker: 'content' });
  for (const then of ['destroy', 'resume', 'pause'] as const)
    await assert.rejects(save(plain, 'held', join(dir, then), { then }), { code: 'DOMAIN_WRONG_STATE' });
  assert.deepEqual(readdirSync(dir), []);
  const { paused } = await checkpoint(plain, 'held', join(dir, 'light'), { mode: 'light' });
  assert.ok(paused && (await host.find('held')).paused);
});

/** A light checkpoint and what the domain's memory was in its pause. */
async function lightWithReadout(
  host: EmbeddedHost,
  tracker: TrackerKind,
  name: string,
  image: string,
): Promise<Readout> {
  const { domid } = await host.find(name);
  let readout: Readout | undefined;
  const plain = plainHost(host, {
    tracker,
    before: (operation) =>
      operation === 'releasePaused'
        ? readOut(host, domid).then((read) => {
            readout = read;
          })
        : undefined,
  });
  await checkpoint(plain, name, image, { mode: 'light' });
  assert.ok(readout, 'the guest was paused');
  return readout;
}

for (const tracker of trackers)
  for (const program of ['writer', 'churner'] as const)
    test(`a light image is the memory in the pause: ${program}, ${tracker}`, async (t) => {
      const { host, dir } = await setUp(t);
      const config = embeddedConfig({ program, rate: 3000, seed: 5, skewPercent: 60, fillPercent: 60 });
      await host.create(
        { ...guestSpec('busy', undefined, { memoryMib: 16, vcpus: 2 }), config },
        { paused: false },
      );
      for (let i = 0; i < 12; i++) {
        const image = join(dir, String(i));
        await sleep(5 * (i % 4));
        await assertSame(image, await lightWithReadout(host, tracker, 'busy', image));
        const { findings } = await verifyImage(image);
        assert.deepEqual(findings, []);
        assert.equal((await digestImage(image)).digest.length, 32);
      }
      await assert.rejects(restore(host, join(dir, '0'), { paused: false, name: 'other' }), {
        code: 'IMAGE_NOT_RESTORABLE',
      });
      await assertGivenBack(host, 'busy');
    });

test('a guest that writes more than fits: light gives up, cooperative streams', async (t) => {
  const { host, dir } = await setUp(t, 1024);
  const guest: GuestPlan = { program: 'writer', vcpus: 2, seed: 9, steps: 4000, rate: 4000, memoryMib: 80 };
  const untouched = await untouchedDigest(host, guest);
  await bootGuest(host, 'busy', guest);
  // A log in which everything was written, always.
  const plain = plainHost(host, { tracker: 'log-dirty' });
  const flooded = new Proxy<Host>(plain, {
    get: (target, name) =>
      name !== 'tracker'
        ? (Reflect.get(target, name) as unknown)
        : async (lease: Parameters<Host['tracker']>[0]) => {
            const real = await plain.tracker(lease);
            const readAndClear = async () => (await real.readAndClear()).fill(0xff);
            const peek = async () => (await real.peek()).fill(0xff);
            return { ...real, readAndClear, peek };
          },
  });
  await assert.rejects(checkpoint(flooded, 'busy', join(dir, 'light'), { mode: 'light' }), {
    code: 'NOT_CONVERGED',
    exitCode: 15,
  });
  assert.deepEqual(readdirSync(dir), []);
  await assertGivenBack(host, 'busy');
  await checkpoint(flooded, 'busy', join(dir, 'cooperative'), { mode: 'cooperative' });
  assert.equal(await finalDigest(host, 'busy', guest), untouched);
  await restore(host, join(dir, 'cooperative'), { paused: false });
  assert.equal(await finalDigest(host, 'busy', guest), untouched);
});

/** Finds a page table with room: an entry that is not present. */
function emptySlot(memory: MemoryHandle, entries: readonly bigint[]): { pfn: number; index: number } {
  for (const [pfn, entry] of entries.entries()) {
    const type = Number(entry >> 60n);
    if (![1, 2, 3].includes(tableLevel(type))) continue;
    const table = words(steps().readPages(memory, BigUint64Array.of(BigInt(pfn))));
    const index = table.findLastIndex((word) => (word & 1n) === 0n);
    if (index >= 0) return { pfn, index };
  }
  throw new Error('every table is full');
}

/** A page table of a domain, an entry of it that is not present, and the domain's frames. */
async function firstTable(host: EmbeddedHost, domid: number) {
  const view = await host.openMemory(domid);
  const { nrPfns } = await host.geometry(domid);
  try {
    const entries = Array.from({ length: Math.ceil(nrPfns / 1024) }, (_, i) => [
      ...steps().queryPages(view.handle, i * 1024, Math.min(1024, nrPfns - i * 1024)),
    ]).flat();
    const frames = new Set(entries.map((entry) => entry & ((1n << 52n) - 1n)));
    return { ...emptySlot(view.handle, entries), frames };
  } finally {
    view.close();
  }
}

for (const tracker of trackers)
  test(`a page table with another domain's frame is a named error, ${tracker}`, async (t) => {
    const { host, dir } = await setUp(t);
    const plain = plainHost(host, { tracker });
    const domid = await host.create(guestSpec('mapper'), { paused: false });
    const other = await host.create(guestSpec('owner'), { paused: false });
    const { pfn, index } = await firstTable(host, domid);
    const [frame = 0n] = (await firstTable(host, other)).frames;
    await host.poke(domid, pfn, index, (frame << 12n) | 1n);
    for (const mode of ['light', 'cooperative'] as const) {
      await assert.rejects(checkpoint(plain, 'mapper', join(dir, mode), { mode }), (error) => {
        assert.equal((error as { code: string }).code, 'PAGE_TABLE_INVALID');
        assert.deepEqual((error as { place: unknown }).place, { pfn });
        return true;
      });
      assert.deepEqual(readdirSync(dir), []);
      await assertGivenBack(host, 'mapper');
    }
  });

for (const tracker of trackers)
  test(`a frame that the hypervisor lends is kept by its MFN in a paused image only, ${tracker}`, async (t) => {
    const { host, dir } = await setUp(t);
    const domid = await host.create(guestSpec('mapper'), { paused: false });
    const { pfn, index, frames } = await firstTable(host, domid);
    let lent = 0n; // a frame that no domain has: its m2p entry is all ones
    while (frames.has(lent)) lent++;
    await host.poke(domid, pfn, index, (lent << 12n) | 1n);
    const image = join(dir, 'light');
    await assertSame(image, await lightWithReadout(host, tracker, 'mapper', image));
    const reader = await ImageReader.open(image, { lanes: 1 });
    assert.equal(reader.readPages([pfn]).readBigUInt64LE(8 * index), (lent << 12n) | 1n | lentMark);
    reader.close();
    const plain = plainHost(host, { tracker });
    await assert.rejects(checkpoint(plain, 'mapper', join(dir, 'c'), { mode: 'cooperative' }), {
      code: 'PAGE_TABLE_INVALID',
    });
    await assertGivenBack(host, 'mapper');
  });

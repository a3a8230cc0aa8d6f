/** Light checkpoints of guests whose frames come and go meanwhile, on a host that sees and logs no more than Xen does. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint, type CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import type { Host } from '../../src/host/contract.js';
import { embeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { plainHost, type PlainHostOptions, type TrackerKind } from '../support/plain_host.js';
import { assertSame, readOut, readOutRaw, type Readout } from '../support/readout.js';

const trackers: readonly TrackerKind[] = ['log-dirty', 'content'];
const mfnMask = (1n << 52n) - 1n;

interface Setting {
  readonly host: EmbeddedHost;
  readonly image: string;
  readonly domid: number;
}

/** An idle guest of 32 MiB: 8 stretches of 1024 pfns. */
async function setUp(t: TestContext): Promise<Setting> {
  const host = await startTestHost(t, { memoryMib: 128 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-balloon-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  const domid = await host.create(guestSpec('guest', { program: 'idle' }, { memoryMib: 32 }), {
    paused: false,
  });
  return { host, image: join(dir, 'image'), domid };
}

/** Before the nth call of an operation; for `holdPaused` all is to be asked of the host at once, as the pause is. */
type Acts = Partial<Record<keyof Host, readonly ((() => Promise<void>) | undefined)[]>>;

/** A light checkpoint among such acts, and the memory as it was in the last pause. */
async function light(
  { host, image, domid }: Setting,
  options: Omit<PlainHostOptions, 'before'>,
  acts: Acts = {},
): Promise<{ result: CheckpointResult; readout: Readout; pauses: number }> {
  const calls = new Map<keyof Host, number>();
  const begun: Promise<void>[] = [];
  let readout: Readout | undefined;
  const plain = plainHost(host, {
    ...options,
    before: (operation) => {
      const n = calls.get(operation) ?? 0;
      calls.set(operation, n + 1);
      const act = acts[operation]?.[n]?.();
      if (act) begun.push(act);
      if (operation !== 'releasePaused') return operation === 'holdPaused' ? undefined : act;
      const read = options.asXen === 'pvh' ? readOutRaw(host, domid) : readOut(host, domid);
      return read.then((found) => void (readout = found));
    },
  });
  const result = await checkpoint(plain, 'guest', image, { mode: 'light' });
  await Promise.all(begun);
  assert.ok(readout, 'the guest was paused');
  return { result, readout, pauses: calls.get('holdPaused') ?? 0 };
}

/** Frames for pfns [first, first + count), each with content. */
async function fill({ host, domid }: Setting, first: number, count: number): Promise<void> {
  const pfns = Array.from({ length: count }, (_, i) => first + i);
  await Promise.all([
    host.balloon(domid, first, count, true),
    ...pfns.map((pfn) => host.poke(domid, pfn, pfn % 512, BigInt(pfn) + 1n)),
  ]);
}

for (const tracker of trackers)
  test(`PVH, ${tracker}: frames that come where none were are in the image`, async (t) => {
    const setting = await setUp(t);
    const { host, domid, image } = setting;
    await host.balloon(domid, 4096, 3072, false);
    const { readout } = await light(
      setting,
      { tracker, asXen: 'pvh' },
      {
        config: [() => fill(setting, 4096, 100)], // all is mapped, the first pass has yet to begin
        geometry: [undefined, () => fill(setting, 5120, 1024)], // after the passes
        holdPaused: [() => fill(setting, 6144, 50)], // nothing is read between this and the pause
      },
    );
    assert.equal([...readout.pages.keys()].filter((pfn) => pfn >= 4096 && pfn < 7168).length, 1174);
    await assertSame(image, readout);
  });

test('PVH, content: frames that came between the passes are not left to the pause', async (t) => {
  const setting = await setUp(t);
  await setting.host.balloon(setting.domid, 4096, 3072, false);
  const { result, readout } = await light(
    setting,
    { tracker: 'content', asXen: 'pvh' },
    { config: [() => fill(setting, 4096, 3072)] },
  );
  await assertSame(setting.image, readout);
  assert.ok(result.copiedPages < 64, `${result.copiedPages} pages were copied in the pause`);
});

test('PVH, log-dirty: frames that go, which no log names, are not in the image', async (t) => {
  const setting = await setUp(t);
  const { host, domid, image } = setting;
  const { readout } = await light(
    setting,
    { tracker: 'log-dirty', asXen: 'pvh' },
    { geometry: [undefined, () => host.balloon(domid, 4096, 2048, false)] },
  );
  await assertSame(image, readout);
});

/** What a PV guest's kernel does to a page of its linear mapping: the pages of its p2m and of its page table for it. */
async function placesOf({ host, domid }: Setting, pfn: number): Promise<{ leaf: number; table: number }> {
  const { p2mFrames } = await host.geometry(domid);
  const leaf = p2mFrames[pfn >> 9];
  const last = p2mFrames.at(-1);
  assert.ok(leaf !== undefined && last !== undefined);
  return { leaf, table: last + 1 + (pfn >> 9) };
}

async function frameOf({ host, domid }: Setting, pfn: number): Promise<bigint> {
  const view = await host.openMemory(domid);
  try {
    return (steps().queryPages(view.handle, pfn, 1)[0] ?? 0n) & mfnMask;
  } finally {
    view.close();
  }
}

/** The kernel gives a page back. */
async function giveBack(setting: Setting, pfn: number): Promise<void> {
  const { host, domid } = setting;
  const { leaf, table } = await placesOf(setting, pfn);
  await host.poke(domid, table, pfn % 512, 0n);
  await host.poke(domid, leaf, pfn % 512, (1n << 64n) - 1n);
  await host.balloon(domid, pfn, 1, false);
}

/** The kernel takes a page; what is returned enters it into its p2m and its page table, at once. */
async function take(setting: Setting, pfn: number): Promise<() => Promise<void>> {
  const { host, domid } = setting;
  const { leaf, table } = await placesOf(setting, pfn);
  await host.balloon(domid, pfn, 1, true);
  const mfn = await frameOf(setting, pfn);
  return async () => {
    await Promise.all([
      host.poke(domid, leaf, pfn % 512, mfn),
      host.poke(domid, table, pfn % 512, (mfn << 12n) | 1n),
    ]);
  };
}

const takeBack = async (setting: Setting, pfn: number): Promise<void> => (await take(setting, pfn))();

for (const tracker of trackers)
  test(`PV, ${tracker}: a page that is ballooned in right before the pause`, async (t) => {
    const setting = await setUp(t);
    const { host, domid, image } = setting;
    for (const pfn of [4000, 6000, 7000]) await giveBack(setting, pfn);
    let enter: (() => Promise<void>) | undefined;
    const { readout } = await light(
      setting,
      { tracker, asXen: 'pv' },
      {
        config: [() => takeBack(setting, 4000)],
        geometry: [
          undefined,
          async () => {
            await takeBack(setting, 6000);
            enter = await take(setting, 7000);
          },
        ],
        // Its neighbours are written to: it is looked at along with them.
        holdPaused: [
          async () => {
            await Promise.all([enter?.(), ...[6999, 7001].map((pfn) => host.poke(domid, pfn, 0, 77n))]);
          },
        ],
      },
    );
    await assertSame(image, readout);
    assert.deepEqual((await verifyImage(image)).findings, []);
  });

for (const asXen of ['pv', 'pvh'] as const)
  for (const tracker of trackers)
    test(`a guest that balloons and builds page tables all the time: ${asXen}, ${tracker}`, async (t) => {
      const setting = await setUp(t);
      const { host, image } = setting;
      await host.destroy(setting.domid);
      const config = embeddedConfig({ program: 'churner', rate: 3000, seed: 5, fillPercent: 60 });
      const spec = { ...guestSpec('guest', undefined, { memoryMib: 16, vcpus: 2 }), config };
      const domid = await host.create(spec, { paused: false });
      for (let i = 0; i < 6; i++) {
        rmSync(image, { force: true });
        await sleep(5 * (i % 4));
        const { readout } = await light({ ...setting, domid }, { tracker, asXen });
        // Frames that went in the last moments are in no log: the image may still hold what was in them.
        await assertSame(image, readout, { mayHoldMore: asXen === 'pvh' && tracker === 'log-dirty' });
      }
    });

/**
 * The oracle with networks: a guest that talks over a wire that loses, doubles and reorders, disturbed anyhow while its backend is
 * late or silent, ends in the memory of an untouched run. A guest that gets back what it did not send crashes.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { behave, checkDisturbed, start } from '../support/disturbed_guests.js';
import {
  boot,
  digest,
  hv,
  newMachine,
  openView,
  reachSteps,
  takeSnapshot,
  type TestMachine,
  tool,
  unpause,
  until,
} from '../support/embedded.js';

test('any guest that talks, disturbed anyhow, ends with the memory of one left alone', async (t) => {
  const networks = fc.integer({ min: 1, max: 4 }).map((count) => ({ disks: [], networks: count }));
  t.diagnostic(await checkDisturbed('talker', networks, 25));
});

/** The same domain, with pages as `change` makes them while nobody else has them. */
async function rewritten(
  m: TestMachine,
  change: (read: (pfn: number) => Buffer, write: (pfn: number, page: Buffer) => void) => void,
): Promise<void> {
  hv.pause(m.id, 1);
  await until('the backends have closed', () => hv.detachDevices(m.id, 1));
  const vcpus = [0, 1].map((id) => hv.getVcpu(m.id, 1, id));
  const nothing = { gained: [], lost: [], tables: [], unpinned: [] };
  hv.beginRewrite(m.id, 1, { ...nothing, geometry: hv.geometry(m.id, 1) });
  const view = openView(m, 1, 'build');
  change(
    (pfn) => Buffer.from(tool.readPages(view, [pfn])),
    (pfn, page) => {
      tool.writePages(view, [pfn], page);
    },
  );
  tool.closeView(view);
  hv.takeTables(m.id, 1, []);
  vcpus.forEach((vcpu, id) => {
    hv.setVcpu(m.id, 1, id, vcpu);
  });
  hv.finishInPlace(m.id, 1);
  unpause(m, 1);
}

const edges = [0n, 1n, 7n, 8n, 9n, 0xffn, 0x100n, 0xffff_ffffn, 1n << 32n, (1n << 64n) - 1n] as const;
const junk = fc.array(
  fc.record({
    page: fc.nat(7),
    // Where the state, the ring's indices and the first requests are, or anywhere.
    word: fc.oneof(fc.nat(20), fc.nat(511)),
    value: fc.oneof(fc.constantFrom(...edges), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
  }),
  { minLength: 1, maxLength: 6 },
);

test('whatever a guest makes of its driver, rings, frames and grants, the machine and its other domains stand', async (t) => {
  using m = newMachine(16384, 8);
  boot(m, 50, 1, { program: 'idle', pages: 700 });
  const bystander = digest(takeSnapshot(m, 50));
  let crashed = 0;
  const texts = new Set<string>();
  const property = fc.asyncProperty(junk, fc.nat(40), async (words, step) => {
    const guest = start(m, 2, { program: 'talker', pages: 1000, seed: 4 }, { disks: [], networks: 2 });
    await reachSteps(m, 1, step);
    await rewritten(m, (read, write) => {
      const text = read(2);
      const [heap, grants, driver] = [184, 224, 240].map((at) => Number(text.readBigUInt64LE(at))) as [
        ...[number, number, number],
      ];
      const places = [driver, driver + 1, driver + 2, driver + 3, driver + 11, grants, grants + 1, heap];
      for (const { page, word, value } of words) {
        const pfn = places[page] ?? 0;
        const changed = read(pfn);
        changed.writeBigUInt64LE(value, word * 8);
        write(pfn, changed);
      }
    });
    await sleep(3);
    behave(guest, { seed: 1 });
    await sleep(2);
    const { shutdown, crashText } = hv.domainInfo(m.id, 1);
    crashed += shutdown === 'crash' ? 1 : 0;
    if (crashText) texts.add(crashText.replace(/vCPU \d: | at .*/gu, ''));
    hv.destroy(m.id, 1);
  });
  const outcome = await fc.check(property, { numRuns: 200 });
  t.diagnostic(`seed ${outcome.seed}, ${crashed} of ${outcome.numRuns} crashed: ${[...texts].join('; ')}`);
  assert.ok(!outcome.failed, fc.defaultReportMessage(outcome));
  assert.ok(crashed > 0);
  assert.equal(digest(takeSnapshot(m, 50)), bystander);
});

/** Of a request in the ring: from so many bytes on a field of two bytes, or of four where it is the grant. */
const wrongs = {
  'a page that is not granted': [0, 5],
  'bytes beyond the page': [4, 4090],
  'more parts than one': [6, 4],
  'a frame that is too short': [10, 13],
  'a frame that is too long': [10, 1515],
} as const;

test('a frame that cannot be is refused, and never sent', async () => {
  for (const [what, [at, value]] of Object.entries(wrongs)) {
    using m = newMachine(2048, 8);
    const guest = start(m, 2, { program: 'talker', pages: 1000, seed: 4 }, { disks: [], networks: 2 });
    await reachSteps(m, 1, 50);
    behave(guest, { holds: 'requests' });
    const view = openView(m, 1, 'live');
    const ring = (): Buffer =>
      tool.readPages(view, [Number(tool.readPages(view, [2]).readBigUInt64LE(240)) + 1]);
    await until('a frame waits', () => ring().readUInt32LE(0) !== ring().readUInt32LE(8));
    tool.closeView(view);
    await rewritten(m, (read, write) => {
      const pfn = Number(read(2).readBigUInt64LE(240)) + 1;
      const page = read(pfn);
      for (let request = page.readUInt32LE(8); request !== page.readUInt32LE(0); request++) {
        const entry = 64 + (request % 256) * 12 + at;
        if (at === 0) page.writeUInt32LE(value, entry);
        else page.writeUInt16LE(value, entry);
      }
      write(pfn, page);
    });
    behave(guest, {});
    await until(what, () => hv.domainInfo(m.id, 1).shutdown === 'crash');
    assert.match(hv.domainInfo(m.id, 1).crashText, /BAD: a frame was refused/u, what);
  }
});

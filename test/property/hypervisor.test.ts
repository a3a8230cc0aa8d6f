/** Guests, whatever they are and whatever is done to them, end in the memory their options say; frames are never lost. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { test } from 'node:test';
import { native } from '../../src/addon.js';
import { isErrorCode, DormouseError } from '../../src/errors.js';
import type { GuestOptions } from '../../src/host/embedded/hypervisor.js';
import {
  boot,
  digest,
  hv,
  newMachine,
  reachSteps,
  rebuild,
  takeSnapshot,
  takeSuspended,
  unpause,
  type TestMachine,
} from '../support/embedded.js';

const guest = fc.record({
  program: fc.constantFrom('counter' as const, 'writer' as const, 'churner' as const),
  pages: fc.integer({ min: 800, max: 2000 }),
  seed: fc.nat(0xffffffff),
  steps: fc.integer({ min: 500, max: 4000 }),
  workingSetPages: fc.nat(2500),
  skewPercent: fc.nat(100),
  fillPercent: fc.nat(100),
});
const action = fc.constantFrom('snapshot', 'move', 'suspend', 'suspend-move', 'pause', 'dirty');

/** Does something to the domain and says which domain goes on. */
function disturb(m: TestMachine, domid: number, what: string): number {
  const move = (taken: ReturnType<typeof takeSuspended>): number => {
    hv.destroy(m.id, domid);
    rebuild(m, domid + 1, taken);
    unpause(m, domid + 1);
    return domid + 1;
  };
  if (what === 'snapshot') takeSnapshot(m, domid);
  if (what === 'move') return move(takeSnapshot(m, domid));
  if (what === 'pause') {
    hv.pause(m.id, domid);
    hv.unpause(m.id, domid);
  }
  if (what === 'dirty') {
    hv.logDirtyOn(m.id, domid);
    hv.logDirtyReadAndClear(m.id, domid);
    hv.logDirtyOff(m.id, domid);
  }
  if (what.startsWith('suspend')) {
    hv.shutdownRequest(m.id, domid, 'suspend');
    assert.equal(hv.domainInfo(m.id, domid).shutdown, 'suspend');
    if (what === 'suspend-move') return move(takeSuspended(m, domid));
    hv.resumeInPlace(m.id, domid);
  }
  return domid;
}

async function end(options: GuestOptions | object, vcpus: number, steps: number): Promise<string> {
  using m = newMachine(4096, 99);
  boot(m, 1, vcpus, options);
  unpause(m, 1);
  await reachSteps(m, 1, steps);
  return digest(takeSnapshot(m, 1));
}

void test('any guest, disturbed anyhow, ends as if left alone', async () => {
  await fc.assert(
    fc.asyncProperty(
      guest,
      fc.integer({ min: 1, max: 8 }),
      fc.array(fc.tuple(action, fc.nat(100)), { minLength: 1, maxLength: 6 }),
      async (options, vcpus, actions) => {
        using m = newMachine(4096, 5);
        boot(m, 1, vcpus, options);
        unpause(m, 1);
        let domid = 1;
        for (const [what, percent] of actions) {
          await reachSteps(m, domid, Math.floor((options.steps * percent) / 400));
          domid = disturb(m, domid, what);
        }
        await reachSteps(m, domid, options.steps);
        assert.equal(digest(takeSnapshot(m, domid)), await end(options, vcpus, options.steps));
        hv.destroy(m.id, domid);
        assert.equal(hv.machineInfo(m.id).freeFrames, 4096 - 16);
      },
    ),
    { numRuns: 25 },
  );
});

type Step = { domid: number; what: 'create' | 'populate' | 'destroy'; first: number; count: number };
const step: fc.Arbitrary<Step> = fc.record({
  domid: fc.integer({ min: 1, max: 4 }),
  what: fc.constantFrom('create', 'populate', 'populate', 'populate', 'destroy'),
  first: fc.nat(900),
  count: fc.integer({ min: 1, max: 300 }),
});

/** What a call answered: its error code, or 'ok'. */
function outcome(call: () => void): string {
  try {
    native(call);
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof DormouseError && isErrorCode(error.code));
    return error.code;
  }
}

const pfns = 1024;
const machineFrames = 2048;

function applyStep(m: TestMachine, model: Map<number, Set<number>>, s: Step): void {
  const owned = model.get(s.domid);
  const used = [...model.values()].reduce((sum, set) => sum + set.size + 1, 0);
  const free = machineFrames - 16 - used;
  if (s.what === 'create') {
    const answer = outcome(() => {
      hv.createShell(m.id, { domid: s.domid, type: 'pvh', vcpus: 1, maxPages: pfns });
      hv.setGeometry(m.id, s.domid, { nrPfns: pfns, guestWidth: 0, p2mFrames: [], p2mGeneration: 0 });
    });
    assert.equal(answer, owned ? 'DOMAIN_EXISTS' : free > 0 ? 'ok' : 'NO_MEMORY');
    if (answer === 'ok') model.set(s.domid, new Set());
  } else if (s.what === 'destroy') {
    assert.equal(
      outcome(() => {
        hv.destroy(m.id, s.domid);
      }),
      owned ? 'ok' : 'DOMAIN_NOT_FOUND',
    );
    model.delete(s.domid);
  } else {
    const wanted = Array.from({ length: s.count }, (_, i) => s.first + i);
    const answer = outcome(() => {
      hv.populate(m.id, s.domid, [[s.first, s.count]]);
    });
    const bad = wanted.some((pfn) => pfn >= pfns || owned?.has(pfn));
    const expected = !owned
      ? 'DOMAIN_NOT_FOUND'
      : bad
        ? 'DOMAIN_WRONG_STATE'
        : s.count > free
          ? 'NO_MEMORY'
          : 'ok';
    assert.equal(answer, expected);
    if (answer === 'ok') wanted.forEach((pfn) => owned?.add(pfn));
  }
}

void test('frames are owned by one domain at most, and populate gives all or none', () => {
  const all = Array.from({ length: pfns }, (_, pfn) => pfn);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      using m = newMachine(machineFrames, 17);
      const model = new Map<number, Set<number>>();
      for (const s of steps) applyStep(m, model, s);
      const seen = new Set<number>();
      let total = 0;
      for (const [domid, owned] of model) {
        const mfns = hv.frames(m.id, domid, all);
        mfns.forEach((mfn, pfn) => {
          assert.equal(mfn !== null, owned.has(pfn));
        });
        for (const mfn of mfns) if (mfn !== null) seen.add(mfn);
        seen.add(hv.sharedInfoFrame(m.id, domid));
        total += owned.size + 1;
      }
      assert.equal(seen.size, total, 'no frame is given twice');
      assert.equal(hv.machineInfo(m.id).freeFrames, machineFrames - 16 - total);
    }),
    { numRuns: 60 },
  );
});

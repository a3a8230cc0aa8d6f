/** Guest programs end in the same memory whatever happens on the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
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
  until,
  type Taken,
} from '../support/embedded.js';

const steps = 20000;
const cases: Partial<GuestOptions>[] = [
  { program: 'counter', steps },
  { program: 'writer', steps, skewPercent: 50 },
  { program: 'churner', steps },
];

async function runToEnd(seed: number, vcpus: number, guest: Partial<GuestOptions>): Promise<Taken> {
  using m = newMachine(8192, seed);
  boot(m, 1, vcpus, guest);
  unpause(m, 1);
  await reachSteps(m, 1, steps);
  return takeSnapshot(m, 1);
}

for (const guest of cases)
  for (const vcpus of [1, 4]) {
    const name = `${String(guest.program)}, ${String(vcpus)} vCPUs`;

    void test(`${name}: memory at step N depends on the seed only`, async () => {
      const first = digest(await runToEnd(1, vcpus, guest));
      assert.equal(digest(await runToEnd(2, vcpus, guest)), first, 'another machine, other MFNs');
      assert.notEqual(digest(await runToEnd(1, vcpus, { ...guest, seed: 8 })), first, 'another seed');
    });

    void test(`${name}: snapshots, suspends and restores on the way change nothing`, async () => {
      const straight = digest(await runToEnd(1, vcpus, guest));
      using m = newMachine(16384, 3);
      boot(m, 1, vcpus, { ...guest, rate: 40000 });
      unpause(m, 1);
      await reachSteps(m, 1, 2000);
      const early = takeSnapshot(m, 1);
      rebuild(m, 2, early);
      hv.shutdownRequest(m.id, 1, 'suspend');
      await until('suspended', () => hv.domainInfo(m.id, 1).shutdown === 'suspend');
      const suspended = takeSuspended(m, 1);
      hv.resumeInPlace(m.id, 1);
      rebuild(m, 3, suspended);
      unpause(m, 2);
      unpause(m, 3);
      for (const domid of [1, 2, 3]) {
        await reachSteps(m, domid, steps);
        // The text page says at which rate it ran; that is the only difference.
        const taken = takeSnapshot(m, domid);
        taken.pages.get(2)?.writeBigUInt64LE(0n, 40);
        assert.equal(digest(taken), straight, `domain ${String(domid)}`);
      }
    });
  }

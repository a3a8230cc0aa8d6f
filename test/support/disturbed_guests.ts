/** Guests with devices on a machine of their own, disturbed while their backends are late, silent or worse. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { after } from 'node:test';
import type { BackendBehaviour, GuestOptions } from '../../src/host/embedded/hypervisor.js';
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
  type Taken,
  type TestMachine,
} from './embedded.js';

export const dir = mkdtempSync(join(tmpdir(), 'dormouse-devices-'));
after(() => rmSync(dir, { recursive: true, force: true }));

let made = 0;
export function newDisk(pages: number): string {
  const path = join(dir, `${++made}.disk`);
  writeFileSync(path, '');
  truncateSync(path, pages * 4096);
  return path;
}

export function copyOf(disks: readonly string[]): string[] {
  return disks.map((disk) => {
    const copy = join(dir, `${++made}.disk`);
    copyFileSync(disk, copy);
    return copy;
  });
}

const wellBehaved: BackendBehaviour = { holds: 'nothing', delayUs: 0, seed: 0, neverCloses: false };

/** Pages of each disk, and how many networks. */
export interface DevicePlan {
  readonly disks: readonly number[];
  readonly networks: number;
}

export interface Running {
  readonly m: TestMachine;
  readonly domid: number;
  readonly disks: readonly string[];
  readonly networks: number;
}

export function behave({ m, domid, disks, networks }: Running, how: Partial<BackendBehaviour>): void {
  for (let index = 0; index < disks.length + networks; index++)
    hv.setBackend(m.id, domid, index, { ...wellBehaved, ...how });
}

/** Memory and disks of a guest that has done its steps. */
async function endOf({ m, domid, disks }: Running, steps: number): Promise<string> {
  await reachSteps(m, domid, steps);
  const files = disks.map((disk) => createHash('sha256').update(readFileSync(disk)).digest('hex'));
  return [digest(takeSnapshot(m, domid)), ...files].join(' ');
}

export function start(
  m: TestMachine,
  vcpus: number,
  guest: Partial<GuestOptions>,
  { disks, networks }: DevicePlan,
): Running {
  const running = { m, domid: 1, disks: disks.map(newDisk), networks };
  boot(m, 1, vcpus, guest, running.disks, networks);
  unpause(m, 1);
  return running;
}

/** Goes on as another domain, on copies of the disks that were made while it stood. */
function move({ m, domid, disks, networks }: Running, take: () => Taken): Running {
  hv.pause(m.id, domid);
  const taken = take();
  const copies = copyOf(disks);
  hv.destroy(m.id, domid);
  rebuild(m, domid + 1, taken, copies, networks);
  unpause(m, domid + 1);
  return { m, domid: domid + 1, disks: copies, networks };
}

const act = {
  snapshot: (on: Running) => {
    takeSnapshot(on.m, on.domid);
    return on;
  },
  move: (on: Running) => move(on, () => takeSnapshot(on.m, on.domid)),
  suspend: (on: Running) => {
    hv.shutdownRequest(on.m.id, on.domid, 'suspend');
    assert.equal(hv.domainInfo(on.m.id, on.domid).shutdown, 'suspend');
    hv.resumeInPlace(on.m.id, on.domid);
    return on;
  },
  suspendMove: (on: Running) => {
    hv.shutdownRequest(on.m.id, on.domid, 'suspend');
    return move(on, () => takeSuspended(on.m, on.domid));
  },
  dirty: (on: Running) => {
    hv.logDirtyOn(on.m.id, on.domid);
    hv.logDirtyReadAndClear(on.m.id, on.domid);
    hv.logDirtyOff(on.m.id, on.domid);
    return on;
  },
} satisfies Record<string, (on: Running) => Running>;

const guest = fc.record({
  pages: fc.integer({ min: 900, max: 1600 }),
  seed: fc.nat(0xffffffff),
  steps: fc.integer({ min: 100, max: 900 }),
  fillPercent: fc.nat(100),
});
const behaviour = fc.record({
  holds: fc.constantFrom('nothing' as const, 'requests' as const, 'answers' as const),
  delayUs: fc.nat(300),
  seed: fc.nat(100),
});
const disturbance = fc.record({
  what: fc.constantFrom(...(Object.keys(act) as (keyof typeof act)[])),
  percent: fc.nat(100),
  before: behaviour,
});

/** Any guest of the program, disturbed anyhow, ends with the memory and disks of one left alone. Its outcome says the seed. */
export async function checkDisturbed(
  program: GuestOptions['program'],
  plans: fc.Arbitrary<DevicePlan>,
  numRuns: number,
): Promise<string> {
  const property = fc.asyncProperty(
    guest,
    fc.integer({ min: 1, max: 4 }),
    plans,
    fc.array(disturbance, { minLength: 1, maxLength: 5 }),
    async (options, vcpus, plan, disturbances) => {
      const booted = { program, ...options };
      using alone = newMachine(4096, 99);
      const untouched = await endOf(start(alone, vcpus, booted, plan), options.steps);
      using m = newMachine(4096, 5);
      let running = start(m, vcpus, booted, plan);
      for (const { what, percent, before } of disturbances) {
        await reachSteps(m, running.domid, Math.floor((options.steps * percent) / 500));
        behave(running, before);
        running = act[what](running);
        behave(running, { seed: before.seed, delayUs: before.delayUs });
      }
      assert.equal(await endOf(running, options.steps), untouched);
      hv.destroy(m.id, running.domid);
      assert.equal(hv.machineInfo(m.id).freeFrames, 4096 - 16);
    },
  );
  const outcome = await fc.check(property, { numRuns });
  assert.ok(!outcome.failed, fc.defaultReportMessage(outcome));
  return `seed ${outcome.seed}, ${outcome.numRuns} guests`;
}

/**
 * Test support: an embedded machine inside this process, and the plainest possible save, restore and digest of its
 * domains, written against Xen's layouts and independent of the engine.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../src/addon.js';
import {
  embedded,
  hypervisor,
  type GuestOptions,
  type HypervisorEvent,
  type MachineId,
} from '../../src/host/embedded/hypervisor.js';
import type { MemoryGeometry } from '../../src/domain/state.js';
import type { MappedMachineHandle, MemoryHandle } from '../../src/handle.js';
import { pageBytes, typeOf } from '../../src/pfn/page_words.js';

export const hv = hypervisor();
export const tool = embedded();

export interface TestMachine {
  readonly id: MachineId;
  readonly map: MappedMachineHandle;
  readonly events: HypervisorEvent[];
  [Symbol.dispose](): void;
}

export function newMachine(frames: number, seed = 1): TestMachine {
  const events: HypervisorEvent[] = [];
  const id = hv.createMachine({ frames, seed }, (event) => events.push(event));
  const map = native(() => tool.openMachine(hv.machineLayout(id)));
  return {
    id,
    map,
    events,
    [Symbol.dispose]() {
      tool.closeMachine(map);
      hv.destroyMachine(id);
    },
  };
}

export const guestDefaults: GuestOptions = {
  program: 'counter',
  pages: 2048,
  seed: 7,
  steps: 0,
  rate: 0,
  workingSetPages: 0,
  skewPercent: 0,
  fillPercent: 50,
  crashAt: 0,
  deaf: false,
  storePort: 1,
  consolePort: 2,
};

/** Boots a guest, with these files as disks that it may write to and so many networks, and leaves it paused. */
export function boot(
  m: TestMachine,
  domid: number,
  vcpus: number,
  guest: Partial<GuestOptions>,
  disks: readonly string[] = [],
  networks = 0,
): void {
  const options = { ...guestDefaults, ...guest };
  native(() => {
    hv.createShell(m.id, { domid, type: 'pv', vcpus, maxPages: options.pages });
  });
  addDisks(m, domid, disks);
  addNetworks(m, domid, networks);
  native(() => hv.boot(m.id, domid, options));
}

export function addDisks(m: TestMachine, domid: number, paths: readonly string[]): void {
  paths.forEach((path, index) =>
    native(() => {
      hv.addDisk(m.id, domid, { name: `xvd${'abcd'[index] ?? ''}`, path, writable: true, port: 100 + index });
    }),
  );
}

function addNetworks(m: TestMachine, domid: number, count: number): void {
  for (let index = 0; index < count; index++)
    hv.addNetwork(m.id, domid, { mac: Buffer.from([0, 0x16, 0x3e, 0, domid, index]), port: 120 + index });
}

export function unpause(m: TestMachine, domid: number): void {
  native(() => {
    hv.unpause(m.id, domid);
  });
}

export async function until(what: string, condition: () => boolean, timeoutMs = 20000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
    await sleep(2);
  }
}

export async function reachSteps(m: TestMachine, domid: number, steps: number): Promise<void> {
  await until(`vCPUs of ${String(domid)} at step ${String(steps)}`, () => {
    const { shutdown, crashText } = hv.domainInfo(m.id, domid);
    if (shutdown !== null) throw new Error(`domain shut down: ${shutdown} ${crashText}`);
    return hv.progress(m.id, domid).steps.every((done) => done >= steps);
  });
}

/** A domain taken apart: MFNs turned into PFNs. */
export interface Taken {
  readonly geometry: MemoryGeometry;
  readonly types: number[];
  /** One Buffer per pfn that has content. */
  readonly pages: Map<number, Buffer>;
  readonly vcpus: Buffer[];
  readonly sharedInfo: Buffer;
}

const frameMask = ((1n << 52n) - 1n) & ~0xfffn;
const noMfn = (1n << 52n) - 1n;
const invalid = (1n << 64n) - 1n;

export function words(page: Buffer): BigUint64Array {
  return new BigUint64Array(page.buffer, page.byteOffset, page.length / 8);
}

export const tableLevel = (type: number): number =>
  type < 0xd && (type & 7) >= 1 && (type & 7) <= 4 ? type & 7 : 0;

function translateTable(page: Buffer, level: number, map: (frame: bigint) => bigint): void {
  const entries = words(page);
  for (let i = 0; i < 512; i++) {
    const entry = entries[i] ?? 0n;
    if (level === 4 && i >= 256 && i <= 271) entries[i] = 0n;
    else if (entry & 1n) entries[i] = (entry & ~frameMask) | (map((entry & frameMask) >> 12n) << 12n);
  }
}

function translateVcpu(vcpu: Buffer, id: number, map: (frame: bigint) => bigint): Buffer {
  const out = Buffer.from(vcpu);
  const at = (offset: number) => out.readBigUInt64LE(offset);
  if (id === 0 && at(616) !== 0n) out.writeBigUInt64LE(map(at(616)), 616);
  for (let i = 0; i < (Number(at(4960)) + 511) / 512 - 1; i++)
    out.writeBigUInt64LE(map(at(4832 + i * 8)), 4832 + i * 8);
  for (const offset of [4984 + 8, 4984 + 24])
    if (at(offset)) out.writeBigUInt64LE(map(at(offset) >> 12n) << 12n, offset);
  return out;
}

/** Reads a whole view. Frames that are not the domain's own make it throw. */
export function take(
  view: MemoryHandle,
  geometry: MemoryGeometry,
  vcpus: readonly Buffer[],
  sharedInfo: Buffer,
): Taken {
  const types: number[] = [];
  const pfnOf = new Map<bigint, bigint>();
  const pages = new Map<number, Buffer>();
  for (let first = 0; first < geometry.nrPfns; first += 1024) {
    const count = Math.min(1024, geometry.nrPfns - first);
    const withBody: number[] = [];
    words(tool.readEntries(view, first, count)).forEach((entry, i) => {
      types.push(typeOf(entry));
      if ((entry & noMfn) !== noMfn) pfnOf.set(entry & noMfn, BigInt(first + i));
      if (entry >> 60n < 0xdn) withBody.push(first + i);
    });
    const read = tool.readPages(view, withBody);
    withBody.forEach((pfn, i) => pages.set(pfn, read.subarray(i * pageBytes, (i + 1) * pageBytes)));
  }
  const toPfn = (mfn: bigint): bigint => {
    const pfn = pfnOf.get(mfn);
    if (pfn === undefined) throw new Error(`foreign mfn ${String(mfn)}`);
    return pfn;
  };
  for (const [pfn, page] of pages) {
    const level = tableLevel(types[pfn] ?? 0);
    if (level) translateTable(page, level, toPfn);
  }
  for (const leaf of geometry.p2mFrames) {
    const list = words(pages.get(leaf) ?? Buffer.alloc(pageBytes));
    list.forEach((mfn, i) => (list[i] = mfn === invalid ? invalid : toPfn(mfn)));
  }
  return { geometry, types, pages, sharedInfo, vcpus: vcpus.map((v, i) => translateVcpu(v, i, toPfn)) };
}

export function openView(
  m: TestMachine,
  domid: number,
  kind: 'live' | 'snapshot' | 'build',
  epoch = 0,
  consume = false,
): MemoryHandle {
  return native(() => tool.openView(m.map, { domain: hv.domainLayout(m.id, domid), kind, epoch, consume }));
}

/** Takes a domain through a snapshot. */
export function takeSnapshot(m: TestMachine, domid: number, consume = true): Taken & { pauseNs: number } {
  const snapshot = native(() => hv.snapshot(m.id, domid));
  const view = openView(m, domid, 'snapshot', snapshot.epoch, consume);
  try {
    const taken = native(() => take(view, snapshot.geometry, snapshot.vcpus, snapshot.sharedInfo));
    return { ...taken, pauseNs: snapshot.pauseNs };
  } finally {
    tool.closeView(view);
    hv.releaseSnapshot(m.id, domid, snapshot.epoch);
  }
}

/** Takes a domain that is suspended. */
export function takeSuspended(m: TestMachine, domid: number): Taken {
  const view = openView(m, domid, 'live');
  const { vcpus } = hv.domainInfo(m.id, domid);
  const contexts = Array.from({ length: vcpus }, (_, i) => hv.getVcpu(m.id, domid, i));
  try {
    return native(() => take(view, hv.geometry(m.id, domid), contexts, hv.readSharedInfo(m.id, domid)));
  } finally {
    tool.closeView(view);
  }
}

const startInfoPfn = (taken: Taken): number => Number(taken.vcpus[0]?.readBigUInt64LE(616));

/** Hash of all that a guest can tell apart; what a toolstack gives anew (ports, frames, flags) is left out. */
export function digest(taken: Taken): string {
  const hash = createHash('sha256');
  hash.update(Buffer.from(taken.types));
  for (const [pfn, page] of [...taken.pages].sort(([a], [b]) => a - b)) {
    const content = Buffer.from(page);
    if (pfn === startInfoPfn(taken)) for (const at of [40, 48, 64, 80]) content.fill(0, at, at + 8);
    hash.update(`${String(pfn)}:`).update(content);
  }
  // Registers that hold program state, and where each vCPU is.
  for (const vcpu of taken.vcpus) hash.update(vcpu.subarray(520, 520 + 80)).update(vcpu.subarray(648, 656));
  return hash.digest('hex');
}

function runsOf(pfns: Iterable<number>): [number, number][] {
  const runs: [number, number][] = [];
  for (const pfn of pfns) {
    const last = runs.at(-1);
    if (last && last[0] + last[1] === pfn) last[1]++;
    else runs.push([pfn, 1]);
  }
  return runs;
}

/** Builds a domain from what was taken, with these files as its disks and so many networks, and leaves it paused. */
export function rebuild(
  m: TestMachine,
  domid: number,
  taken: Taken,
  disks: readonly string[] = [],
  networks = 0,
): void {
  const { nrPfns } = taken.geometry;
  const pfns = [...taken.pages.keys()].sort((a, b) => a - b);
  hv.createShell(m.id, { domid, type: 'pv', vcpus: taken.vcpus.length, maxPages: nrPfns });
  addDisks(m, domid, disks);
  addNetworks(m, domid, networks);
  hv.setGeometry(m.id, domid, taken.geometry);
  hv.populate(m.id, domid, runsOf(pfns));
  const mfns = hv.frames(m.id, domid, pfns);
  const mfnOf = new Map(pfns.map((pfn, i) => [BigInt(pfn), BigInt(mfns[i] ?? -1)]));
  const toMfn = (pfn: bigint): bigint => {
    const mfn = mfnOf.get(pfn);
    if (mfn === undefined) throw new Error(`pfn ${String(pfn)} has no frame`);
    return mfn;
  };
  const view = openView(m, domid, 'build');
  for (const [pfn, from] of taken.pages) {
    const page = Buffer.from(from);
    const level = tableLevel(taken.types[pfn] ?? 0);
    if (level) translateTable(page, level, toMfn);
    if (taken.geometry.p2mFrames.includes(pfn)) {
      const list = words(page);
      list.forEach((listed, i) => (list[i] = listed === invalid ? invalid : toMfn(listed)));
    }
    if (pfn === startInfoPfn(taken)) {
      page.writeBigUInt64LE(BigInt(hv.sharedInfoFrame(m.id, domid)) << 12n, 40);
      page.writeUInt32LE(0, 48);
      for (const at of [56, 72]) page.writeBigUInt64LE(toMfn(page.readBigUInt64LE(at)), at);
    }
    tool.writePages(view, [pfn], page);
  }
  tool.closeView(view);
  const sharedInfo = Buffer.from(taken.sharedInfo);
  sharedInfo.writeBigUInt64LE(0n, 3096);
  hv.writeSharedInfo(m.id, domid, sharedInfo);
  const pinned = taken.types.flatMap((type, pfn) =>
    type & 8 && tableLevel(type) ? [{ pfn, level: tableLevel(type) }] : [],
  );
  hv.pin(m.id, domid, pinned);
  taken.vcpus.forEach((vcpu, i) => {
    hv.setVcpu(m.id, domid, i, translateVcpu(vcpu, i, toMfn));
  });
  hv.finish(m.id, domid);
}

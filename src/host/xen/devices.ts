/**
 * The devices of a domain as the toolstack has them in xenstore, and how they are taken off a domain that stands still and put back:
 * the states that its own drivers would write are written for them (xen/include/public/io/xenbus.h). The backends attach again to the
 * same rings and event channels. Its kernel hears of it when all is as before.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { performance } from 'node:perf_hooks';
import { DormouseError } from '../../errors.js';
import type { Obstacle, Xenstore } from '../contract.js';

/** XenbusState. */
const state = { initialising: '1', initWait: '2', connected: '4', closing: '5', closed: '6' } as const;

export interface XenDevice {
  /** "vbd 51712". */
  readonly name: string;
  readonly frontend: string;
  readonly backend: string;
  /** What its rings are: a hash of all of the frontend's nodes but its state. */
  readonly rings: string;
  /** Of its rings' pages. */
  readonly grants: readonly RingGrant[];
}

export interface RingGrant {
  readonly grant: number;
  /** Its page is the first one of its ring, which has the indices. */
  readonly isFirst: boolean;
}

/** What a device of the domain is taken off and put back through. */
export interface DevicesOf {
  readonly xenstore: Xenstore;
  readonly domid: number;
  /** Throws DOMAIN_NOT_FOUND once the domain is gone. */
  readonly requireThere: () => void;
}

const stepTimeoutMs = 20_000;
const pollMs = 5;
/** A frontend's nodes are the guest's own: more than any driver writes are not looked at. */
const mostNodes = 256;
const mostDepth = 3;

const lacks = (message: string): Obstacle => ({ code: 'HOST_LACKS', message });

/** Of the control domain's kernel, which is known to attach again to what it finds. */
const isKnown = (domid: number, backend: string): boolean =>
  ['vbd', 'vif'].some((kind) => backend.startsWith(`/local/domain/0/backend/${kind}/${domid}/`));

class Nodes {
  #left = mostNodes;

  constructor(
    private readonly xenstore: Xenstore,
    private readonly frontend: string,
  ) {}

  /** HOST_LACKS where there are more than a driver writes. */
  async below(under = '', depth = 0): Promise<string[]> {
    const names = (await this.xenstore.list(`${this.frontend}${under}`)).sort();
    this.#left -= names.length;
    if (this.#left < 0 || depth > mostDepth)
      throw new DormouseError('HOST_LACKS', `${this.frontend} has more nodes than a driver writes`);
    const found: string[] = [];
    for (const name of names) {
      const here = `${under}/${name}`;
      const value = await this.xenstore.read(`${this.frontend}${here}`);
      if (value !== null && here !== '/state') found.push(here, value);
      found.push(...(await this.below(here, depth + 1)));
    }
    return found;
  }
}

/** Of the nodes and their values in turn. */
function grantsOf(nodes: readonly string[]): RingGrant[] {
  const found: RingGrant[] = [];
  for (let i = 0; i + 1 < nodes.length; i += 2) {
    const [node = '', value = ''] = nodes.slice(i, i + 2);
    const [, index] = /[/-]ring-ref(\d*)$/.exec(node) ?? [];
    if (index === undefined || !/^\d{1,9}$/.test(value)) continue;
    found.push({ grant: Number(value), isFirst: Number(index) === 0 });
  }
  return found;
}

async function ringsOf(xenstore: Xenstore, frontend: string): Promise<Pick<XenDevice, 'rings' | 'grants'>> {
  const nodes = await new Nodes(xenstore, frontend).below();
  const rings = createHash('sha256').update(JSON.stringify(nodes)).digest('hex').slice(0, 32);
  return { rings, grants: grantsOf(nodes) };
}

/** Each page of the rings of these devices: its grant, plus 2^32 if it is the first of a disk's ring. */
export function ringPages(devices: readonly XenDevice[]): BigUint64Array {
  const words = ({ name, grants }: XenDevice): bigint[] =>
    grants.map(({ grant, isFirst }) => BigInt(grant) + (isFirst && name.startsWith('vbd ') ? 1n << 32n : 0n));
  return BigUint64Array.from(devices.flatMap(words));
}

/** The console that every domain has, which is none of its kernel's devices. */
const isFirstConsole = (kind: string, id: string): boolean => kind === 'console' && id === '0';

/**
 * All devices that the toolstack gave to the domain, in order: what the guest says of them is not asked. HOST_LACKS if a frontend is
 * none that a driver made.
 */
export async function findDevices(xenstore: Xenstore, domid: number): Promise<XenDevice[]> {
  const home = `/libxl/${domid}/device`;
  const found: XenDevice[] = [];
  for (const kind of (await xenstore.list(home)).sort())
    for (const id of (await xenstore.list(`${home}/${kind}`)).sort()) {
      if (isFirstConsole(kind, id)) continue;
      const [frontend, backend] = await Promise.all(
        ['frontend', 'backend'].map((end) => xenstore.read(`${home}/${kind}/${id}/${end}`)),
      );
      if (typeof frontend !== 'string' || typeof backend !== 'string') continue;
      found.push({ name: `${kind} ${id}`, frontend, backend, ...(await ringsOf(xenstore, frontend)) });
    }
  return found;
}

/** What must be found again by who goes back to this instant. */
export const describeDevices = (devices: readonly XenDevice[]): string => JSON.stringify(devices);

function describedNames(text: string): Map<string, string> {
  try {
    const devices = JSON.parse(text) as XenDevice[];
    return new Map(devices.map((device) => [device.name, JSON.stringify(device)]));
  } catch {
    return new Map();
  }
}

/** How the devices are others than they were: null if they are not. */
export function changedDevices(then: string, now: readonly XenDevice[]): string | null {
  const before = describedNames(then);
  const after = describedNames(describeDevices(now));
  const lost = [...before.keys()].filter((name) => !after.has(name));
  const gained = [...after.keys()].filter((name) => !before.has(name));
  const other = [...after].filter(([name, text]) => before.has(name) && before.get(name) !== text);
  const parts = [
    ...lost.map((name) => `${name} is gone`),
    ...gained.map((name) => `${name} is new`),
    ...other.map(([name]) => `${name} was connected anew`),
  ];
  return parts.length === 0 ? null : parts.join(', ');
}

export interface AskedOfDevices {
  /** Disks that are written to stay as they are. */
  readonly keepDisks: boolean;
  /** They may be in the middle of being taken off or put back. */
  readonly leftMidway: boolean;
}

/** Of one device: what keeps it from being taken off and put back. */
async function obstaclesOf(
  { xenstore, domid }: Pick<DevicesOf, 'xenstore' | 'domid'>,
  { name, frontend, backend }: XenDevice,
  { keepDisks, leftMidway }: AskedOfDevices,
): Promise<Obstacle[]> {
  if (!isKnown(domid, backend)) return [lacks(`${name} cannot be taken off: its backend is ${backend}`)];
  const [at, mode] = await Promise.all([
    xenstore.read(`${frontend}/state`),
    xenstore.read(`${backend}/mode`),
  ]);
  if (at !== state.connected && !leftMidway)
    return [lacks(`${name} is not connected (state ${at ?? 'none'})`)];
  if (!name.startsWith('vbd ') || mode === 'r' || keepDisks) return [];
  return [lacks(`${name} is a disk that is written to: see --keep-disks`)];
}

export async function deviceObstacles(
  of: Pick<DevicesOf, 'xenstore' | 'domid'>,
  devices: readonly XenDevice[],
  asked: AskedOfDevices,
): Promise<Obstacle[]> {
  return (await Promise.all(devices.map((device) => obstaclesOf(of, device, asked)))).flat();
}

function gone({ requireThere }: DevicesOf, { name, backend }: XenDevice): never {
  requireThere();
  throw new DormouseError('HOST_UNAVAILABLE', `the backend of ${name} is gone (${backend})`);
}

async function until(of: DevicesOf, device: XenDevice, wanted: string): Promise<void> {
  const untilMs = performance.now() + stepTimeoutMs;
  const { name, backend } = device;
  for (;;) {
    const now = await of.xenstore.read(`${backend}/state`);
    if (now === wanted) return;
    if (now === null) gone(of, device);
    if (performance.now() > untilMs)
      throw new DormouseError(
        'HOST_UNAVAILABLE',
        `the backend of ${name} stays in state ${now} instead of ${wanted} (${backend})`,
      );
    await sleep(pollMs);
  }
}

/** A node that has gone with its domain is not made again: it would be the next one's of that id. */
async function writeState(of: DevicesOf, device: XenDevice, value: string): Promise<void> {
  const path = `${device.frontend}/state`;
  const there = await of.xenstore.transaction(async (tx) => {
    if ((await tx.read(path)) === null) return false;
    await tx.write(path, value);
    return true;
  });
  if (!there) gone(of, device);
}

async function step(of: DevicesOf, device: XenDevice, write: string, wanted: string): Promise<void> {
  await writeState(of, device, write);
  await until(of, device, wanted);
}

/** Whatever they are in the middle of; of a paused domain. HOST_UNAVAILABLE if a backend does not answer in time, DOMAIN_NOT_FOUND. */
export async function takeOff(of: DevicesOf, devices: readonly XenDevice[]): Promise<void> {
  const off = devices.map(async (device) => {
    if ((await of.xenstore.read(`${device.backend}/state`)) === state.closed) return;
    await step(of, device, state.closing, state.closing);
    await step(of, device, state.closed, state.closed);
  });
  await settled(off);
}

/** A backend that says that it is closed while requests are on their way goes on until it is told once more. */
export async function closeAgain(of: DevicesOf, devices: readonly XenDevice[]): Promise<void> {
  await settled(devices.map((device) => writeState(of, device, state.closed)));
}

/** The same back, from wherever they are. */
export async function putBack(of: DevicesOf, devices: readonly XenDevice[]): Promise<void> {
  const on = devices.map(async (device) => {
    if ((await of.xenstore.read(`${device.backend}/state`)) === state.connected) {
      // One that was not taken off yet.
      await writeState(of, device, state.connected);
      return;
    }
    await step(of, device, state.initialising, state.initWait);
    await step(of, device, state.connected, state.connected);
  });
  await settled(on);
}

/** All have come to their end when this returns or throws. */
async function settled(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason as Error;
}

/**
 * The devices of a domain as xenstore has them, and how they are taken off a domain that stands still and put back: the states that
 * its own drivers would write are written for them (xen/include/public/io/xenbus.h). The backends attach again to the same rings
 * and event channels. Its kernel hears of it when all is as before.
 */
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
  /** All of the frontend's nodes but its state, in order: what its rings are. */
  readonly nodes: readonly (readonly [name: string, value: string])[];
}

/** Backends of the control domain's kernel, which are known to attach again to what they find. */
const known = /^\/local\/domain\/0\/backend\/(vbd|vif)\//;
const stepTimeoutMs = 20_000;
const pollMs = 5;

async function nodesOf(xenstore: Xenstore, path: string, under = ''): Promise<[string, string][]> {
  const names = (await xenstore.list(`${path}${under}`)).sort();
  const found = await Promise.all(
    names.map(async (name): Promise<[string, string][]> => {
      const here = `${under}/${name}`;
      const below = await nodesOf(xenstore, path, here);
      const value = await xenstore.read(`${path}${here}`);
      return [...(value === null || here === '/state' ? [] : [[here, value] as [string, string]]), ...below];
    }),
  );
  return found.flat();
}

async function deviceOf(xenstore: Xenstore, frontend: string, name: string): Promise<XenDevice[]> {
  const backend = await xenstore.read(`${frontend}/backend`);
  return backend === null ? [] : [{ name, frontend, backend, nodes: await nodesOf(xenstore, frontend) }];
}

/** All devices that have a backend, in order. */
export async function findDevices(xenstore: Xenstore, domid: number): Promise<XenDevice[]> {
  const home = `/local/domain/${domid}/device`;
  const kinds = (await xenstore.list(home)).sort();
  const found = await Promise.all(
    kinds.map(async (kind) => {
      const ids = (await xenstore.list(`${home}/${kind}`)).sort();
      return Promise.all(ids.map((id) => deviceOf(xenstore, `${home}/${kind}/${id}`, `${kind} ${id}`)));
    }),
  );
  return found.flat(2);
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

const lacks = (message: string): Obstacle => ({ code: 'HOST_LACKS', message });

/** Of one device: what keeps it from being taken off and put back. */
async function obstaclesOf(xenstore: Xenstore, device: XenDevice, keepDisks: boolean): Promise<Obstacle[]> {
  const { name, frontend, backend } = device;
  if (!known.test(backend)) return [lacks(`${name} cannot be taken off: its backend is ${backend}`)];
  const [at, mode] = await Promise.all([
    xenstore.read(`${frontend}/state`),
    xenstore.read(`${backend}/mode`),
  ]);
  if (at !== state.connected) return [lacks(`${name} is not connected (state ${at ?? 'none'})`)];
  if (!name.startsWith('vbd ') || mode === 'r' || keepDisks) return [];
  return [lacks(`${name} is a disk that is written to, and no point holds disks: see --keep-disks`)];
}

export async function deviceObstacles(
  xenstore: Xenstore,
  devices: readonly XenDevice[],
  keepDisks: boolean,
): Promise<Obstacle[]> {
  return (await Promise.all(devices.map((device) => obstaclesOf(xenstore, device, keepDisks)))).flat();
}

async function until(xenstore: Xenstore, { name, backend }: XenDevice, wanted: string): Promise<void> {
  const untilMs = performance.now() + stepTimeoutMs;
  for (;;) {
    const now = await xenstore.read(`${backend}/state`);
    if (now === wanted) return;
    if (performance.now() > untilMs)
      throw new DormouseError(
        'HOST_UNAVAILABLE',
        `the backend of ${name} stays in state ${now ?? 'none'} instead of ${wanted} (${backend})`,
      );
    await sleep(pollMs);
  }
}

async function step(xenstore: Xenstore, device: XenDevice, write: string, wanted: string): Promise<void> {
  await xenstore.write(`${device.frontend}/state`, write);
  await until(xenstore, device, wanted);
}

/** Whatever they are in the middle of; of a paused domain. HOST_UNAVAILABLE if a backend does not answer in time. */
export async function takeOff(xenstore: Xenstore, devices: readonly XenDevice[]): Promise<void> {
  const off = devices.map(async (device) => {
    if ((await xenstore.read(`${device.backend}/state`)) === state.closed) return;
    await step(xenstore, device, state.closing, state.closing);
    await step(xenstore, device, state.closed, state.closed);
  });
  await settled(off);
}

/** The same back, from wherever they are. */
export async function putBack(xenstore: Xenstore, devices: readonly XenDevice[]): Promise<void> {
  const on = devices.map(async (device) => {
    if ((await xenstore.read(`${device.backend}/state`)) === state.connected) {
      // One that was not taken off yet.
      await xenstore.write(`${device.frontend}/state`, state.connected);
      return;
    }
    await step(xenstore, device, state.initialising, state.initWait);
    await step(xenstore, device, state.connected, state.connected);
  });
  await settled(on);
}

/** All have come to their end when this returns or throws. */
async function settled(work: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find(({ status }) => status === 'rejected');
  if (failed?.status === 'rejected') throw failed.reason as Error;
}

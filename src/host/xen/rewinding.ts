/**
 * Going back in place on Xen. The order: the mark, which keeps the domain paused whatever becomes of this process; devices off; the
 * domain's pages (by who called); registers, grants, events; devices on; the mark removed.
 */
import { readFileSync } from 'node:fs';
import { native } from '../../addon.js';
import { steps } from '../../worker/steps.js';
import { DormouseError } from '../../errors.js';
import type { XenMemoryHandle, XenRewriterHandle } from '../../handle.js';
import type { DomainLinks, DomainState } from '../../domain/state.js';
import type { MemoryView, Obstacle, Rewinder, RewindTarget } from '../contract.js';
import { changedDevices, deviceObstacles, findDevices, putBack, takeOff, type XenDevice } from './devices.js';
import { shutdownReason } from './domain_flags.js';
import type { XenLease } from './leases.js';
import type { RingEnds, XenNative } from './native.js';
import type { RewindMarks } from './rewind_marks.js';
import type { XenXenstore } from './xenstore.js';

/** A domain that is started anew, be it by its image, has another id; after a boot of the host it may have the same one. */
export const startOf = (domid: number): string =>
  `${domid} ${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}`;

const number = (text: string | null): number => (text !== null && /^\d+$/.test(text) ? Number(text) : 0);

/** Where xenstore says that a domain's rings are; zeroes where it does not. */
export async function ringEnds(xenstore: XenXenstore, domid: number): Promise<RingEnds> {
  const home = `/local/domain/${domid}`;
  const [frame, storePort, consolePort] = await Promise.all(
    ['store/ring-ref', 'store/port', 'console/port'].map(async (node) =>
      number(await xenstore.read(`${home}/${node}`)),
    ),
  );
  return { storeFrame: frame ?? 0, storePort: storePort ?? 0, consolePort: consolePort ?? 0 };
}

/** The pages of both rings: those at the other ends go on in them. `toPfn` is of a PV domain, whose frames xenstore names. */
export async function ringPfns(
  xenstore: XenXenstore,
  domid: number,
  toPfn: ((frame: number) => number | null) | null,
): Promise<number[]> {
  const home = `/local/domain/${domid}`;
  const frames = await Promise.all(
    ['store/ring-ref', 'console/ring-ref'].map(async (node) =>
      number(await xenstore.read(`${home}/${node}`)),
    ),
  );
  return frames.flatMap((frame) => (frame === 0 ? [] : ((toPfn ? toPfn(frame) : frame) ?? [])));
}

/** A view of `memory` that can be written to later. */
export function openRewriter(
  api: XenNative,
  domid: number,
  memory: XenMemoryHandle,
): { rewriter: XenRewriterHandle; view: Pick<MemoryView, 'handle' | 'close'> } {
  const rewriter = native(() => api.rewriterOpen(domid, memory));
  const handle = steps().adoptMemory(api.rewriterExport(rewriter));
  const close = (): void => {
    steps().releaseMemory(handle);
    api.rewriterClose(rewriter);
  };
  return { rewriter, view: { handle, close } };
}

const lacks = (message: string): Obstacle => ({ code: 'HOST_LACKS', message });

function linksOf(state: DomainState): DomainLinks | string {
  const { links } = state;
  if (!links)
    return 'the image does not say what tied the domain to others: take a light one of it while it runs';
  if (links.unfit !== '')
    return `the image is of an instant that cannot be gone back to in place: ${links.unfit}`;
  return links;
}

const closedChannel = 0;

/** Whether each port is for what it was for then. */
function changedChannel(then: Buffer, now: Buffer): number | null {
  for (let port = 0; port < Math.max(then.length, now.length); port++)
    if ((then[port] ?? closedChannel) !== (now[port] ?? closedChannel)) return port;
  return null;
}

interface Wanted {
  readonly api: XenNative;
  readonly xenstore: XenXenstore;
  readonly domid: number;
  readonly target: RewindTarget;
}

/** All that stands against going back, of a domain that is whole. */
export async function rewindObstacles({ api, xenstore, domid, target }: Wanted): Promise<Obstacle[]> {
  const links = linksOf(target.state);
  if (typeof links === 'string') return [lacks(links)];
  if (links.start !== startOf(domid))
    return [
      lacks('the domain was started anew since the image: only what it did since can be taken back in place'),
    ];
  const devices = await findDevices(xenstore, domid);
  const changed = changedDevices(links.devices, devices);
  if (changed !== null) return [lacks(`its devices are not those of the image: ${changed}`)];
  const obstacles = await deviceObstacles(xenstore, devices, target.keepDisks);
  const port = changedChannel(
    links.channels,
    native(() => api.channels(domid)),
  );
  if (port !== null) obstacles.push(lacks(`event channel ${port} is not what it was at the image`));
  return obstacles;
}

export interface Rewinding extends Wanted {
  readonly held: XenLease;
  readonly uuid: string;
  readonly marks: RewindMarks;
  readonly rewriter: XenRewriterHandle;
  /** Ends the domain's log: it is read no more, and Xen would have its pages otherwise. */
  readonly endLog: () => void;
  readonly releasePaused: () => Promise<void>;
}

/** Of a domain that nothing has been changed of: as it was. */
async function undo({ xenstore, domid, marks }: Rewinding, devices: readonly XenDevice[]): Promise<void> {
  await putBack(xenstore, devices);
  marks.remove(domid);
}

function refuse(domid: number, { code, message }: Obstacle): never {
  throw new DormouseError(code, message, { place: { domid } });
}

/** Devices are off, and nobody holds a grant that is to be another; after an error it is as it was, unless it was left so. */
async function takeApart(
  of: Rewinding,
  links: DomainLinks,
  devices: readonly XenDevice[],
  again: boolean,
): Promise<void> {
  const { api, xenstore, rewriter } = of;
  try {
    await takeOff(xenstore, devices);
    native(() => api.rewriterCheckGrants(rewriter, links));
  } catch (thrown) {
    if (!again) await undo(of, devices).catch(() => undefined);
    throw thrown;
  }
}

/** `rewind` of the contract. */
export async function beginRewinding(of: Rewinding): Promise<Rewinder> {
  const { api, xenstore, domid, uuid, target, held, marks, rewriter } = of;
  const again = marks.has(domid, uuid);
  const links = linksOf(target.state);
  if (typeof links === 'string') refuse(domid, lacks(links));
  const [obstacle] = again ? [] : await rewindObstacles(of);
  if (obstacle) refuse(domid, obstacle);
  const rings = await ringEnds(xenstore, domid);
  const devices = await findDevices(xenstore, domid);
  of.endLog();
  // Once whole it is let go, whoever had it paused before it was left.
  if (again) held.note('pause');
  marks.set(domid, uuid);
  await takeApart(of, links, devices, again);
  native(() => api.rewriterBegin(rewriter));
  return {
    complete: async ({ pins, state }) => {
      const pfns = BigUint64Array.from(pins, ({ pfn }) => BigInt(pfn));
      const levels = Uint8Array.from(pins, ({ level }) => level);
      const hadShutDown = shutdownReason(native(() => api.domain(domid)).flags) !== null;
      native(() => api.rewriterLand(rewriter, state, links, rings, pfns, levels));
      if (hadShutDown) await xenstore.resumeDomain(domid);
      await putBack(xenstore, devices);
      marks.remove(domid);
      await of.releasePaused();
    },
  };
}

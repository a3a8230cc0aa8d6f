/**
 * Going back in place on Xen. The order: the mark, which keeps the domain paused whatever becomes of this process; devices off; what
 * they wrote meanwhile is looked up (by who called); the domain's pages (by who called); registers, grants, events; devices on; the
 * mark removed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { native, nativeCall, nativePromise } from '../../addon.js';
import type { DomainLinks, DomainState } from '../../domain/state.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { XenMemoryHandle, XenRewriterHandle } from '../../handle.js';
import { steps } from '../../worker/steps.js';
import type { MemoryView, Obstacle, Rewinder, RewindTarget } from '../contract.js';
import {
  changedDevices,
  closeAgain,
  deviceObstacles,
  type DevicesOf,
  findDevices,
  putBack,
  takeOff,
  type XenDevice,
} from './devices.js';
import { hasFlag, shutdownReason, uuidOf } from './domain_flags.js';
import type { XenLease } from './leases.js';
import type { RingEnds, XenNative } from './native.js';
import type { RewindMarks } from './rewind_marks.js';
import { channelObstacle, ringEnds, startOf } from './ties.js';
import type { XenXenstore } from './xenstore.js';

/** A view of the `memory` of a domain that runs, or is half rewound, which can be written to later. */
export async function openRewriter(
  api: XenNative,
  domid: number,
  memory: XenMemoryHandle,
): Promise<{ rewriter: XenRewriterHandle; view: Pick<MemoryView, 'handle' | 'close'> }> {
  const rewriter = native(() => api.rewriterOpen(domid, memory));
  const handle = steps().adoptMemory(api.rewriterExport(rewriter));
  const close = (): void => {
    steps().releaseMemory(handle);
    api.rewriterClose(rewriter);
  };
  try {
    await nativePromise(() => api.rewriterLook(rewriter));
  } catch (thrown) {
    close();
    throw thrown;
  }
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

export interface RewindWanted {
  readonly api: Pick<
    XenNative,
    'channels' | 'domain' | 'pause' | 'rewriterCheckTies' | 'rewriterBegin' | 'rewriterLand'
  >;
  readonly xenstore: Pick<
    XenXenstore,
    'read' | 'write' | 'list' | 'remove' | 'watch' | 'transaction' | 'resumeDomain'
  >;
  readonly domid: number;
  readonly uuid: string;
  readonly marks: RewindMarks;
  readonly target: RewindTarget;
}

/** All that stands against going back; a domain that was left half rewound may have its devices off. */
export async function rewindObstacles(of: RewindWanted): Promise<Obstacle[]> {
  const { api, xenstore, domid, uuid, marks, target } = of;
  const links = linksOf(target.state);
  if (typeof links === 'string') return [lacks(links)];
  if (links.start !== startOf(domid))
    return [
      lacks('the domain was started anew since the image: only what it did since can be taken back in place'),
    ];
  const devices = await findDevices(xenstore, domid);
  const changed = changedDevices(links.devices, devices);
  if (changed !== null) return [lacks(`its devices are not those of the image: ${changed}`)];
  const asked = { keepDisks: target.keepDisks, leftMidway: marks.has(domid, uuid) };
  const obstacles = await deviceObstacles(of, devices, asked);
  const now = native(() => api.channels(domid));
  const other = channelObstacle(links.channels, now, await ringEnds(xenstore, domid), false);
  return other ? [...obstacles, other] : obstacles;
}

export interface Rewinding extends RewindWanted {
  readonly held: Pick<XenLease, 'note'>;
  readonly rewriter: XenRewriterHandle;
  readonly notice: (text: string) => void;
  /** Ends the domain's log: it is read no more, and Xen would have its pages otherwise. */
  readonly endLog: () => void;
}

function refuse(domid: number, { code, message }: Obstacle): never {
  throw new DormouseError(code, message, { place: { domid } });
}

const isPaused = ({ api, domid }: RewindWanted): boolean =>
  hasFlag(native(() => api.domain(domid)).flags, 'paused');

/** DOMAIN_NOT_FOUND; one that is dying counts as gone, as its devices are being taken from it. */
function requireThere({ api, domid, uuid }: RewindWanted): void {
  const now = native(() => api.domain(domid));
  if (uuidOf(now.handle) === uuid && !hasFlag(now.flags, 'dying')) return;
  throw new DormouseError('DOMAIN_NOT_FOUND', `domain ${domid} was destroyed`, { place: { domid } });
}

function requireStands(of: RewindWanted): void {
  if (isPaused(of)) return;
  const { domid } = of;
  throw new DormouseError(
    'DOMAIN_WRONG_STATE',
    `domain ${domid} was let go by somebody else while it was rolled back`,
    { place: { domid } },
  );
}

/** For requests of the devices that are on their way. */
const mostCloses = 20;
const betweenClosesMs = 50;

class XenRewinder implements Rewinder {
  readonly #devicesOf: DevicesOf;

  constructor(
    private readonly of: Rewinding,
    private readonly links: DomainLinks,
    private readonly rings: RingEnds,
    private readonly devices: readonly XenDevice[],
    /** It was left half rewound by another one. */
    private readonly again: boolean,
  ) {
    const { xenstore, domid } = of;
    this.#devicesOf = { xenstore, domid, requireThere: () => requireThere(of) };
  }

  /** After an error it is as it was, unless it was left half rewound or cannot be put back. */
  async takeOff(): Promise<void> {
    const { api, domid, marks, uuid, rewriter } = this.of;
    const { links, rings } = this;
    marks.set(domid, uuid);
    try {
      await this.#orGone(takeOff(this.#devicesOf, this.devices));
      await this.#orGone(this.#untilUnbound());
      native(() => api.rewriterCheckTies(rewriter, links, rings));
    } catch (thrown) {
      await this.abandon().catch(() => undefined);
      throw thrown;
    }
  }

  async #untilUnbound(): Promise<void> {
    const { api, domid } = this.of;
    for (let tries = 1; ; tries++) {
      const now = native(() => api.channels(domid));
      const bound = channelObstacle(this.links.channels, now, this.rings, true);
      if (!bound) return;
      if (tries === mostCloses) refuse(domid, bound);
      await closeAgain(this.#devicesOf, this.devices);
      await sleep(betweenClosesMs);
    }
  }

  async abandon(): Promise<void> {
    if (this.again) return;
    await this.#orGone(putBack(this.#devicesOf, this.devices));
    this.of.marks.remove(this.of.domid);
  }

  async begin(): Promise<void> {
    const { api, rewriter, endLog } = this.of;
    try {
      requireStands(this.of);
      endLog();
    } catch (thrown) {
      await this.abandon().catch(() => undefined);
      throw thrown;
    }
    native(() => api.rewriterBegin(rewriter));
  }

  requireThere(): Promise<void> {
    return this.#orGone(nativeCall(() => requireThere(this.of)));
  }

  complete(rest: Parameters<Rewinder['complete']>[0]): Promise<void> {
    return this.#orGone(this.#land(rest));
  }

  async #land({ pins, state }: Parameters<Rewinder['complete']>[0]): Promise<void> {
    const { api, domid, marks, notice, rewriter, xenstore } = this.of;
    const pfns = BigUint64Array.from(pins, ({ pfn }) => BigInt(pfn));
    const levels = Uint8Array.from(pins, ({ level }) => level);
    const hadShutDown = shutdownReason(native(() => api.domain(domid)).flags) !== null;
    const timers = native(() => api.rewriterLand(rewriter, state, this.links, this.rings, pfns, levels));
    if (timers !== '')
      notice(
        `domain ${domid}: its timers could not be raised (${timers}): a vCPU that was idle may sleep until its next event`,
      );
    if (hadShutDown) await xenstore.resumeDomain(domid);
    await putBack(this.#devicesOf, this.devices);
    await this.#wakeXenstore();
    requireStands(this.of);
    marks.remove(domid);
  }

  /**
   * What was told to the domain since it stood is in its ring, and the event that said so is forgotten: one more says it again. A request
   * to shut down that it has not taken was of what it is no more.
   */
  async #wakeXenstore(): Promise<void> {
    const asked = `/local/domain/${this.of.domid}/control/shutdown`;
    await this.of.xenstore.transaction(async (tx) => {
      if ((await tx.read(asked)) !== null) await tx.write(asked, '');
    });
  }

  /** A domain that is gone takes its mark with it. */
  async #orGone(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (thrown) {
      if (asDormouseError(thrown).code === 'DOMAIN_NOT_FOUND') this.of.marks.remove(this.of.domid);
      throw thrown;
    }
  }
}

/** `rewind` of the contract. */
export async function beginRewinding(of: Rewinding): Promise<Rewinder> {
  const { api, xenstore, domid, uuid, target, held, marks } = of;
  const again = marks.has(domid, uuid);
  const links = linksOf(target.state);
  if (typeof links === 'string') refuse(domid, lacks(links));
  const [obstacle] = await rewindObstacles(of);
  if (obstacle) refuse(domid, obstacle);
  if (again) {
    // Once whole it is let go, whoever had it paused before it was left; and somebody may have let it go since.
    held.note('pause');
    if (!isPaused(of)) native(() => api.pause(domid));
  }
  requireStands(of);
  const [rings, devices] = [await ringEnds(xenstore, domid), await findDevices(xenstore, domid)];
  const rewinder = new XenRewinder(of, links, rings, devices, again);
  await rewinder.takeOff();
  return rewinder;
}

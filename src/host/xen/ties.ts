/** What ties a domain to others, as xenstore and Xen have it: its rings, its devices, its event channels. */
import { readFileSync } from 'node:fs';
import { asDormouseError } from '../../errors.js';
import type { Obstacle } from '../contract.js';
import { describeDevices, findDevices, ringPages } from './devices.js';
import type { RingEnds } from './native.js';
import type { KnownBefore } from './pauses.js';
import type { XenXenstore } from './xenstore.js';

/** A domain that is started anew, be it by its image, has another id; after a boot of the host it may have the same one. */
export const startOf = (domid: number): string =>
  `${domid} ${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}`;

const number = (text: string | null): number => (text !== null && /^\d+$/.test(text) ? Number(text) : 0);

/** Where xenstore says that a domain's rings are; zeroes where it does not. */
export async function ringEnds(xenstore: Pick<XenXenstore, 'read'>, domid: number): Promise<RingEnds> {
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

/** Before a pause in which an image is taken: what keeps the domain from going back to it is told, and never in the image's way. */
export async function tiesBefore(
  xenstore: XenXenstore,
  domid: number,
): Promise<Omit<KnownBefore, 'eventPages'>> {
  const rings = await ringEnds(xenstore, domid);
  const start = startOf(domid);
  try {
    const found = await findDevices(xenstore, domid);
    return { rings, start, unfit: '', devices: describeDevices(found), ringPages: ringPages(found) };
  } catch (thrown) {
    return {
      rings,
      start,
      unfit: asDormouseError(thrown).message,
      devices: '',
      ringPages: new BigUint64Array(),
    };
  }
}

/** EVTCHNSTAT_* (xen/include/public/event_channel.h). */
const channel = { closed: 0, unbound: 1, interdomain: 2 } as const;

/**
 * Whether each channel is for what it was for then: the domain's own, or one that a backend may have the other end of. `off`: no backend
 * has one now.
 */
export function channelObstacle(then: Buffer, now: Buffer, rings: RingEnds, off: boolean): Obstacle | null {
  const lacks = (message: string): Obstacle => ({ code: 'HOST_LACKS', message });
  for (let port = 0; port < Math.max(then.length, now.length); port++) {
    const [was, is] = [then[port] ?? channel.closed, now[port] ?? channel.closed];
    const isOurs = port === rings.storePort || port === rings.consolePort;
    const kind = (at: number): number => (at === channel.interdomain && !isOurs ? channel.unbound : at);
    if (kind(was) !== kind(is)) return lacks(`event channel ${port} is not what it was at the image`);
    if (off && !isOurs && is === channel.interdomain)
      return lacks(
        `event channel ${port} leads to another domain, and not to a backend that can be taken off (a vchan, for example)`,
      );
  }
  return null;
}

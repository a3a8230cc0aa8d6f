/** Domains appearing, shutting down and going, told from the two announcements that xenstored makes. */
import type { DomainEvent } from '../contract.js';
import { shutdownReason } from './domain_flags.js';
import type { NativeDomain } from './native.js';
import type { XenXenstore } from './xenstore.js';

/** What is different between two lists of domains. */
export function changesBetween(
  before: ReadonlyMap<number, NativeDomain>,
  after: ReadonlyMap<number, NativeDomain>,
): DomainEvent[] {
  const events: DomainEvent[] = [];
  for (const domid of before.keys()) if (!after.has(domid)) events.push({ domid, type: 'released' });
  for (const [domid, { flags }] of after) {
    const old = before.get(domid);
    if (!old) events.push({ domid, type: 'created' });
    const wasDown = old !== undefined && shutdownReason(old.flags) !== null;
    if (shutdownReason(flags) !== null && !wasDown) events.push({ domid, type: 'shutdown' });
  }
  return events;
}

/** Calls back for each event until the returned function is called. */
export function watchEvents(
  xenstore: XenXenstore,
  domains: () => NativeDomain[],
  listener: (event: DomainEvent) => void,
): () => void {
  const look = (): Map<number, NativeDomain> => new Map(domains().map((domain) => [domain.domid, domain]));
  let known = look();
  let stopped = false;
  const changed = (): void => {
    if (stopped) return;
    const now = look();
    const events = changesBetween(known, now);
    known = now;
    for (const event of events) listener(event);
  };
  const ends = ['@introduceDomain', '@releaseDomain'].map((path) => xenstore.watch(path, changed));
  return () => {
    stopped = true;
    for (const end of ends) void end.then((stop) => stop()).catch(() => undefined);
  };
}

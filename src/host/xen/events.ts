/**
 * Domains appearing, shutting down, dying and going, told from two lists of domains. xenstored announces that there is something to
 * see; what it does not announce is looked for again until it has happened.
 */
import type { DomainEvent } from '../contract.js';
import { type DomainHappening, type Happening, numbered } from '../events.js';
import { hasFlag, shutdownReason, uuidOf } from './domain_flags.js';
import type { NativeDomain } from './native.js';
import type { XenXenstore } from './xenstore.js';

type Domains = ReadonlyMap<number, NativeDomain>;

/** How soon what is under way is looked at again; each time twice as late. */
const [soonMs, lateMs] = [20, 2000];

const isSame = (a: NativeDomain | undefined, b: NativeDomain | undefined): boolean =>
  a !== undefined && b !== undefined && a.handle.equals(b.handle);

/** Its last vCPU is still on its way off a processor, so that its time still grows. */
const isStopping = ({ flags }: NativeDomain): boolean =>
  shutdownReason(flags) !== null && hasFlag(flags, 'running');

function happening(type: DomainHappening['type'], { domid, handle, flags }: NativeDomain): DomainHappening {
  return { type, domid, uuid: uuidOf(handle), reason: shutdownReason(flags) };
}

/** Of one that shut down, was resumed and shut down again only the time tells: a domain that stands uses no processor. */
function hasShutDown(before: NativeDomain | undefined, now: NativeDomain): boolean {
  const reason = shutdownReason(now.flags);
  if (reason === null) return false;
  return before === undefined || shutdownReason(before.flags) !== reason || now.cpuTimeNs > before.cpuTimeNs;
}

/** What is different between two lists of domains. */
export function changesBetween(before: Domains, after: Domains): DomainHappening[] {
  const events: DomainHappening[] = [];
  for (const [domid, old] of before)
    if (!isSame(old, after.get(domid))) events.push(happening('released', old));
  for (const [domid, domain] of after) {
    const then = before.get(domid);
    const old = isSame(then, domain) ? then : undefined;
    if (!old) events.push(happening('created', domain));
    if (hasShutDown(old, domain)) events.push(happening('shutdown', domain));
    if (hasFlag(domain.flags, 'dying') && !(old && hasFlag(old.flags, 'dying')))
      events.push(happening('dying', domain));
  }
  return events;
}

/** The list as it is to be compared: one that is stopping is as it was before. */
function settled(before: Domains, domains: readonly NativeDomain[]): Domains {
  const asBefore = (domain: NativeDomain): NativeDomain => {
    if (!isStopping(domain)) return domain;
    const old = before.get(domain.domid);
    return old && isSame(old, domain) ? old : { ...domain, flags: 0 };
  };
  return new Map(domains.map((domain) => [domain.domid, asBefore(domain)]));
}

/**
 * Calls back for each event until the returned function is called. `domains` lists them; where it throws, or xenstored cannot be asked,
 * events are told to be lost.
 */
export function watchEvents(
  xenstore: Pick<XenXenstore, 'watch'>,
  domains: () => NativeDomain[],
  listener: (event: DomainEvent) => void,
): () => void {
  const number = numbered(listener);
  let known = settled(new Map(), domains());
  let timer: NodeJS.Timeout | undefined;
  let delayMs = soonMs;
  let [stopped, lost] = [false, false];

  /** A listener may stop it between two events. */
  const tell = (what: Happening): void => {
    if (!stopped) number(what);
  };
  const again = (underWay: boolean): void => {
    if (stopped || !underWay) delayMs = soonMs;
    else {
      timer = setTimeout(look, delayMs);
      delayMs = Math.min(2 * delayMs, lateMs);
    }
  };
  const lose = (): void => {
    if (!lost) tell({ type: 'lost' });
    lost = true;
  };
  function look(): void {
    if (stopped) return;
    clearTimeout(timer);
    let listed: NativeDomain[];
    try {
      listed = domains();
    } catch {
      lose();
      again(true);
      return;
    }
    lost = false;
    const now = settled(known, listed);
    const events = changesBetween(known, now);
    known = now;
    // The end of one that is dying is announced to nobody.
    again(listed.some((domain) => isStopping(domain) || hasFlag(domain.flags, 'dying')));
    events.forEach(tell);
  }

  const ends = ['@introduceDomain', '@releaseDomain'].map((path) => xenstore.watch(path, look));
  for (const end of ends) end.catch(lose);
  return () => {
    stopped = true;
    clearTimeout(timer);
    for (const end of ends) void end.then((stop) => stop()).catch(() => undefined);
  };
}

/** Asking a guest to suspend, through xenstore. */
import { setTimeout as sleep } from 'node:timers/promises';
import { performance } from 'node:perf_hooks';
import { native } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import { shutdownReason } from './domain_flags.js';
import type { XenNative } from './native.js';
import type { XenXenstore } from './xenstore.js';

// Each look costs some 10 µs; what it adds to the guest's standstill is half of it.
const pollMs = 2;

/** Written in the same moment as the request: who undoes it can tell whether it was made. */
const askedPath = (domid: number): string => `/local/domain/${domid}/dormouse/suspend`;
const controlPath = (domid: number): string => `/local/domain/${domid}/control/shutdown`;

/** True once the guest has suspended itself. DOMAIN_WRONG_STATE if it ended otherwise. */
function hasSuspended(api: XenNative, domid: number): boolean {
  const reason = shutdownReason(native(() => api.domain(domid)).flags);
  if (reason === null) return false;
  if (reason === 'suspend') return true;
  const text = `domain ${domid} has shut down (${reason}) instead of suspending`;
  throw new DormouseError('DOMAIN_WRONG_STATE', text, { place: { domid } });
}

/** A domain that is asked to suspend, for as long as its lease is held. */
export interface SuspendWait {
  readonly api: XenNative;
  readonly domid: number;
  readonly isHeld: () => boolean;
  /** Does it, and lets the lease end only then: who undoes a request must find it made, or never made. */
  readonly whole: (ask: () => Promise<void>) => Promise<void>;
}

async function waitSuspended(wait: SuspendWait, untilMs: number): Promise<boolean> {
  const { api, domid, isHeld } = wait;
  for (;;) {
    if (!isHeld())
      throw new DormouseError('CANCELLED', `the lease on domain ${domid} ended`, { place: { domid } });
    if (hasSuspended(api, domid)) return true;
    if (performance.now() >= untilMs) return false;
    await sleep(pollMs);
  }
}

/** True if the guest had not taken the request yet and now cannot. */
function withdraw(xenstore: XenXenstore, domid: number): Promise<boolean> {
  return xenstore.transaction(async (tx) => {
    if ((await tx.read(controlPath(domid))) !== 'suspend') return false;
    await tx.write(controlPath(domid), '');
    // As if never asked: whoever looks later would take an asked one for taken.
    await tx.remove(askedPath(domid));
    return true;
  });
}

/**
 * Returns when the guest has suspended. SUSPEND_TIMEOUT if it has not taken the request after `timeoutMs`, the request
 * withdrawn; or if it took it and has not suspended after as long again: that cannot be withdrawn, and it may still do so.
 * CANCELLED at once when the lease ends, which undoes the rest. `word` is what the request can be known by.
 */
export async function suspendGuest(
  wait: SuspendWait,
  xenstore: XenXenstore,
  word: string,
  timeoutMs: number,
): Promise<void> {
  const { domid } = wait;
  await wait.whole(() =>
    xenstore.transaction(async (tx) => {
      await tx.write(askedPath(domid), word);
      await tx.write(controlPath(domid), 'suspend');
    }),
  );
  if (await waitSuspended(wait, performance.now() + timeoutMs)) return;
  const place = { domid };
  const seconds = timeoutMs / 1000;
  if (await withdraw(xenstore, domid))
    throw new DormouseError('SUSPEND_TIMEOUT', `domain ${domid} did not take the request in ${seconds} s`, {
      place,
    });
  if (await waitSuspended(wait, performance.now() + timeoutMs)) return;
  const text = `domain ${domid} took the request but did not suspend in ${2 * seconds} s`;
  throw new DormouseError('SUSPEND_TIMEOUT', text, { place, guest: 'unknown' });
}

/**
 * The ends of a capture. Before its image has its name a failure leaves the guest as it was and no file; after, the image
 * is there, whole, and no failure may be told as one of the capture.
 */
import { asDormouseError, DormouseError, type GuestState } from '../errors.js';
import type { Host, Lease, OperationKind } from '../host/contract.js';
import type { DomainInfo } from '../domain/state.js';

/** What the domain is now, as far as it can be seen. */
async function guestNow(host: Host, { domid, uuid }: DomainInfo): Promise<GuestState> {
  try {
    const domain = (await host.list()).find((each) => each.domid === domid && each.uuid === uuid);
    if (!domain || domain.dying) return 'gone';
    if (domain.shutdown !== null) return domain.shutdown === 'suspend' ? 'suspended' : 'unknown';
    return domain.paused ? 'paused' : 'running';
  } catch (thrown) {
    return asDormouseError(thrown).code === 'HOST_DIED' ? 'gone' : 'unknown';
  }
}

/** Whether it is paused now, as its operator may have had it meanwhile; of one that cannot be seen, whether it was. */
export async function isPaused(host: Host, before: DomainInfo): Promise<boolean> {
  return (await host.info(before.domid).catch(() => before)).paused;
}

/** Leases that `afterCommit` ended: how that went was told by it. */
const settled = new WeakSet<Lease>();

/**
 * Runs `body` under a lease of the domain, and ends it. If that fails after `body` did, the error is body's, with the
 * state the guest was left in.
 */
export async function underLease<T>(
  host: Host,
  info: DomainInfo,
  operation: OperationKind,
  body: (lease: Lease) => Promise<T>,
): Promise<T> {
  const lease = await host.acquire(info.domid, operation);
  let result: T;
  try {
    result = await body(lease);
  } catch (thrown) {
    const error = asDormouseError(thrown);
    try {
      await lease.release();
    } catch (late) {
      if (error.code === 'NOT_SETTLED') throw error;
      const text = `${error.message}; and not all could be undone: ${asDormouseError(late).message}`;
      const { code, exitCode, place } = error;
      const guest = await guestNow(host, info);
      throw new DormouseError(code, text, { cause: error, place, guest, exitCode });
    }
    throw error;
  }
  if (!settled.has(lease)) await lease.release();
  return result;
}

export type Then = 'destroy' | 'resume' | 'pause';

const asAsked: Readonly<Record<Then, GuestState | null>> = { destroy: 'gone', pause: 'paused', resume: null };
const failed: Readonly<Record<Then, string>> = {
  destroy: 'could not be ended',
  pause: 'could not be left paused',
  resume: 'could not be let go as it was',
};

/**
 * Does `settle` with the domain of an image that has its name, then ends the lease, which does what is left. NOT_SETTLED,
 * with the state the guest is in, if it did not come to what `then` says.
 */
export async function afterCommit(
  { host, lease, info, path }: { host: Host; lease: Lease; info: DomainInfo; path: string },
  then: Then,
  settle: () => Promise<void>,
): Promise<void> {
  settled.add(lease);
  const failures: DormouseError[] = [];
  for (const step of [settle, () => lease.release()])
    await step().catch((thrown: unknown) => failures.push(asDormouseError(thrown)));
  const [first] = failures;
  if (!first) return;
  const guest = await guestNow(host, info);
  if (guest === asAsked[then] && first.code !== 'HOST_DIED') return;
  const text = `the image ${path} is whole and kept, but ${info.name} ${failed[then]}: ${first.message}`;
  throw new DormouseError('NOT_SETTLED', text, { cause: first, guest, place: { domid: info.domid, path } });
}

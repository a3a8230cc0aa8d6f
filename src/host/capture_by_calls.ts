/** How a domain is stopped, captured and let go on a host that is asked for each part. */
import { availableParallelism } from 'node:os';
import { native } from '../addon.js';
import { type Downtime, Pause } from '../domain/operation.js';
import { type CaptureHow, steps } from '../worker/steps.js';
import type { Host, Lease, StoppedCapture } from './contract.js';

type Asked = Pick<Host, 'holdPaused' | 'releasePaused' | 'readState'>;

/** Of a domain that stands still: what changed is found, and copied if it fits; whether it did. PAGE_TABLE_INVALID. */
export function copyChanges(
  { memory, live }: Pick<StoppedCapture, 'memory' | 'live'>,
  pause: Pause,
  how: Omit<CaptureHow, 'threads'>,
): boolean {
  memory.catchUp?.(how.logged !== null);
  pause.done('find');
  const copied = native(() =>
    steps().liveCapture(live, memory.handle, { ...how, threads: availableParallelism() }),
  );
  pause.partly('copy', steps().liveCopyingMs(live));
  pause.done('find');
  return copied;
}

async function capture(host: Asked, lease: Lease, wanted: StoppedCapture, pause: Pause): Promise<void> {
  const { memory, tracker, live, maxPages, standing, frozen } = wanted;
  // Asked for without waiting in between: each answer that is waited for lengthens the pause.
  const [, logged, state] = await Promise.all([
    pause.until('stop', host.holdPaused(lease)),
    tracker ? pause.until('find', tracker.peek()) : null,
    pause.until('state', host.readState(lease.domid)),
  ]);
  const how = { logged, thorough: false, anywhere: true, maxPages };
  if (copyChanges({ memory, live }, pause, how)) {
    standing(state);
    frozen?.();
  }
  pause.done('state');
}

/** `captureStopped` of the contract. */
export async function captureByCalls(host: Asked, lease: Lease, wanted: StoppedCapture): Promise<Downtime> {
  const pause = new Pause();
  await capture(host, lease, wanted, pause).catch(async (thrown: unknown) => {
    // The first error is the one to tell.
    await host.releasePaused(lease).catch(() => undefined);
    throw thrown;
  });
  await host.releasePaused(lease);
  pause.done('resume');
  return pause.parts();
}

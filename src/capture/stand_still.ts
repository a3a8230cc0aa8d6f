/** How a domain is brought to stand still for an image, and let go again. */
import { type Downtime, type Operation, Pause, snapshotDowntime } from '../domain/operation.js';
import { asDormouseError, DormouseError, ofGuest } from '../errors.js';
import type { Host, Lease, MemoryView, Snapshot } from '../host/contract.js';
import type { CaptureSource } from './write_image.js';
import { refuseDeviceModel } from '../domain/hvm.js';
import { rewindingAdvice } from '../domain/states.js';
import type { DomainInfo } from '../domain/state.js';

export const defaultSuspendTimeoutMs = 60_000;

export interface SuspendOptions {
  /** How long the guest may take to answer. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** What it takes is told to `operation`: until the guest is touched, and from then on. */
export interface StandOptions extends SuspendOptions {
  readonly operation: Operation;
}

/** A source, how long no vCPU executed for it, and how to let go of what it holds. */
export interface StandingStill {
  readonly source: CaptureSource;
  /** Null while the guest still stands. */
  readonly pauseMs: number | null;
  readonly downtime: Downtime | null;
  /** The guest went through its suspend call: a failure from here on costs it a pause. */
  readonly suspended: boolean;
  /** Pages the host copied aside so far; 0 where it does not. */
  cowPages(): Promise<number>;
  /** Closes the view and drops the snapshot; the run state is the lease's business. Idempotent. */
  release(): Promise<void>;
}

/** Refuses a domain whose memory is not (or not any more) a guest's. */
export function requireWhole(info: DomainInfo): void {
  if (info.rewinding)
    throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is half rewound`, {
      guest: 'paused',
      advice: rewindingAdvice(info.name),
    });
  if (info.building)
    throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is still being built by another operation`);
  if (info.dying) throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is being destroyed`);
}

/** Refuses a domain that could not go on from its image. */
export function requireSavable(info: DomainInfo): void {
  requireWhole(info);
  refuseDeviceModel(info);
  if (info.shutdown !== null)
    throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} has shut down (${info.shutdown})`);
}

/** The same promise for every call: a release that was made once is not made again. */
function once(release: () => Promise<void>): () => Promise<void> {
  let made: Promise<void> | undefined;
  return () => (made ??= release());
}

/** What a source says of its domain besides its state. */
export async function describe(
  host: Host,
  info: DomainInfo,
): Promise<Pick<CaptureSource, 'info' | 'hostKind' | 'config'>> {
  return { info, hostKind: host.kind, config: await host.config(info.domid) };
}

/** An error after the guest was suspended: same code, but the guest was given back after a pause (exit 20). */
export function afterSuspend(thrown: unknown): DormouseError {
  const error = asDormouseError(thrown);
  if (error.guest === 'gone' || error.guest === 'resumed') return error;
  return ofGuest(error, 'resumed', error.code === 'CANCELLED' ? error.exitCode : 20);
}

/** Asks the guest to suspend. On abort the lease is ended, which withdraws the request or resumes the guest. */
export async function requestSuspend(host: Host, lease: Lease, options: SuspendOptions): Promise<void> {
  const { timeoutMs, signal } = options;
  const cancelled = (): DormouseError =>
    new DormouseError('CANCELLED', 'cancelled while the guest was asked to suspend');
  if (signal?.aborted) throw cancelled();
  let released: Promise<void> | undefined;
  const withdraw = (): void => {
    released = lease.release();
    released.catch(() => undefined);
  };
  signal?.addEventListener('abort', withdraw, { once: true });
  try {
    await host.suspend(lease, timeoutMs);
  } catch (thrown) {
    if (!released) throw thrown;
  } finally {
    signal?.removeEventListener('abort', withdraw);
  }
  if (!released) return;
  await released;
  throw cancelled();
}

function ofSnapshot(
  base: Pick<CaptureSource, 'info' | 'hostKind' | 'config'>,
  snapshot: Snapshot,
  pause: Pick<StandingStill, 'pauseMs' | 'downtime' | 'suspended'>,
): StandingStill {
  const { memory, geometry, state } = snapshot;
  return {
    source: { ...base, memory, geometry, state, consistency: 'suspend-point' },
    ...pause,
    cowPages: () => snapshot.cowPages(),
    release: once(async () => {
      memory.close();
      await snapshot.release();
    }),
  };
}

/** Light: the host brings the guest to its suspend point without the shutdown bit and copies on write from there. */
export async function snapshotLight(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  { operation, ...options }: { readonly readOnce: boolean; readonly operation: Operation },
): Promise<StandingStill> {
  const capabilities = await host.capabilities();
  for (const name of ['cow-snapshot', 'light-suspend-point'] as const) {
    const have = capabilities[name];
    if (have !== true) throw new DormouseError('HOST_LACKS', `a light checkpoint needs ${name}: ${have}`);
  }
  const base = await describe(host, info);
  operation.done('prepare');
  const snapshot = await host.snapshot(lease, options);
  operation.done('pause');
  const pauseMs = snapshot.pauseNs / 1e6;
  return ofSnapshot(base, snapshot, { pauseMs, downtime: snapshotDowntime(pauseMs), suspended: false });
}

/** The guest's memory, opened while it runs on and other preparations end, so that it stands the shorter. */
async function openAhead(host: Host, domid: number, ready: Promise<void>): Promise<MemoryView> {
  const opening = host.openMemory(domid);
  try {
    const [memory] = await Promise.all([opening, ready]);
    return memory;
  } catch (thrown) {
    await opening.then(
      (view) => view.close(),
      () => undefined,
    );
    throw thrown;
  }
}

/**
 * The guest suspends itself and stands until the lease ends or it is resumed. It is asked to once `ready` is fulfilled.
 * CANCELLED on abort.
 */
export async function suspendGuest(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  options: StandOptions & { readonly ready: Promise<void> },
): Promise<StandingStill> {
  const describing = describe(host, info);
  describing.catch(() => undefined); // it is waited for when the memory is there, which must be closed then
  const memory = await openAhead(host, info.domid, options.ready);
  let suspended = false;
  try {
    const base = await describing;
    options.operation.done('prepare');
    await requestSuspend(host, lease, options);
    suspended = true;
    memory.catchUp?.(false);
    const [geometry, state] = [await host.geometry(info.domid), await host.readState(info.domid)];
    options.operation.done('pause');
    return {
      source: { ...base, memory, geometry, state, consistency: 'suspend-point' },
      pauseMs: null,
      downtime: null,
      suspended,
      cowPages: () => Promise.resolve(0),
      release: () => {
        memory.close();
        return Promise.resolve();
      },
    };
  } catch (thrown) {
    memory.close();
    throw suspended ? afterSuspend(thrown) : thrown;
  }
}

async function snapshotAndResume(host: Host, lease: Lease, pause: Pause): Promise<Snapshot> {
  const snapshot = await host.snapshot(lease, { readOnce: true });
  pause.done('snapshot');
  try {
    await host.resumeInPlace(lease);
    pause.done('resume');
    return snapshot;
  } catch (thrown) {
    snapshot.memory.close();
    await snapshot.release();
    throw thrown;
  }
}

/**
 * Cooperative with copy-on-write: the guest suspends itself, is snapshotted and resumed at once, so that it stands only
 * for the handshake. The pause is measured from the request, as no tool sees when the last vCPU stopped. CANCELLED on
 * abort.
 */
export async function suspendAndSnapshot(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  options: StandOptions,
): Promise<StandingStill> {
  const base = await describe(host, info);
  options.operation.done('prepare');
  const pause = new Pause();
  await requestSuspend(host, lease, options);
  pause.done('stop');
  const snapshot = await snapshotAndResume(host, lease, pause).catch((thrown: unknown) => {
    throw afterSuspend(thrown);
  });
  options.operation.done('pause');
  return ofSnapshot(base, snapshot, { pauseMs: pause.totalMs, downtime: pause.parts(), suspended: true });
}

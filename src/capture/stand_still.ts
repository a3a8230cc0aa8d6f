/** How a domain is brought to stand still for an image, and let go again. */
import { performance } from 'node:perf_hooks';
import { DormouseError } from '../errors.js';
import type { DomainInfo, Host, Lease, MemoryView, Snapshot } from '../host/contract.js';
import type { CaptureSource } from './write_image.js';

export const defaultSuspendTimeoutMs = 60_000;

/** A source, how long no vCPU executed for it, and how to let go of what it holds. */
export interface StandingStill {
  readonly source: CaptureSource;
  /** Null while the guest still stands. */
  readonly pauseMs: number | null;
  /** Pages the host copied aside so far; 0 where it does not. */
  cowPages(): Promise<number>;
  /** Closes the view and drops the snapshot; the run state is the lease's business. Idempotent. */
  release(): Promise<void>;
}

/** Refuses a domain whose memory is not (or not any more) a guest's. */
export function requireWhole(info: DomainInfo): void {
  if (info.building)
    throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is still being built by another operation`);
  if (info.dying) throw new DormouseError('DOMAIN_WRONG_STATE', `${info.name} is being destroyed`);
}

/** Refuses a domain that could not go on from its image. */
export function requireSavable(info: DomainInfo): void {
  requireWhole(info);
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

function ofSnapshot(
  base: Pick<CaptureSource, 'info' | 'hostKind' | 'config'>,
  snapshot: Snapshot,
  pauseMs: number,
): StandingStill {
  const { memory, geometry, state } = snapshot;
  return {
    source: { ...base, memory, geometry, state, consistency: 'suspend-point' },
    pauseMs,
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
  options: { readonly readOnce: boolean },
): Promise<StandingStill> {
  const capabilities = await host.capabilities();
  for (const name of ['cow-snapshot', 'light-suspend-point'] as const) {
    const have = capabilities[name];
    if (have !== true) throw new DormouseError('HOST_LACKS', `a light checkpoint needs ${name}: ${have}`);
  }
  const base = await describe(host, info);
  const snapshot = await host.snapshot(lease, options);
  return ofSnapshot(base, snapshot, snapshot.pauseNs / 1e6);
}

/** The guest suspends itself and stands until the lease ends or it is resumed. */
export async function suspendGuest(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  timeoutMs: number,
): Promise<StandingStill> {
  const base = await describe(host, info);
  await host.suspend(lease, timeoutMs);
  let memory: MemoryView | undefined;
  try {
    const [geometry, state] = [await host.geometry(info.domid), await host.readState(info.domid)];
    memory = await host.openMemory(info.domid);
    const view = memory;
    return {
      source: { ...base, memory: view, geometry, state, consistency: 'suspend-point' },
      pauseMs: null,
      cowPages: () => Promise.resolve(0),
      release: () => {
        view.close();
        return Promise.resolve();
      },
    };
  } catch (thrown) {
    memory?.close();
    throw thrown;
  }
}

/**
 * Cooperative with copy-on-write: the guest suspends itself, is snapshotted and resumed at once, so that it stands only
 * for the handshake. The pause is measured from the request, as no tool sees when the last vCPU stopped.
 */
export async function suspendAndSnapshot(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  timeoutMs: number,
): Promise<StandingStill> {
  const base = await describe(host, info);
  const requestedMs = performance.now();
  await host.suspend(lease, timeoutMs);
  const snapshot = await host.snapshot(lease, { readOnce: true });
  try {
    await host.resumeInPlace(lease);
  } catch (thrown) {
    snapshot.memory.close();
    await snapshot.release();
    throw thrown;
  }
  return ofSnapshot(base, snapshot, performance.now() - requestedMs);
}

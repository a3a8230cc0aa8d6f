/** `save`: the guest suspends, its image is written, and it is torn down, resumed or left paused. */
import { performance } from 'node:perf_hooks';
import {
  afterSuspend,
  defaultSuspendTimeoutMs,
  requireSavable,
  snapshotLight,
  suspendAndSnapshot,
  suspendGuest,
  type StandingStill,
} from '../capture/stand_still.js';
import { liveSuspended } from '../capture/live_image.js';
import { commitImage, finished, newImage, writePages } from '../capture/write_image.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';
import { DormouseError } from '../errors.js';
import type { Host, Lease } from '../host/contract.js';
import { encodingLanes, warmWorkers } from '../worker/pool.js';
import type { DomainInfo } from '../domain/state.js';

export interface SaveOptions extends OperationOptions {
  /** What becomes of the domain: torn down as `xl save` does, resumed in place (-c), or left paused (-p). */
  readonly then: 'destroy' | 'resume' | 'pause';
  /** How long the guest may take to suspend. Default 60,000. */
  readonly suspendTimeoutMs?: number;
}

export interface SaveResult {
  readonly path: string;
  readonly imageId: string;
  readonly domid: number;
  readonly name: string;
  /** Whether the domain is left paused: as asked for, or because it was. */
  readonly paused: boolean;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  /** Whole operation, and the part of it during which no vCPU executed (null if it never ran again). */
  readonly elapsedMs: number;
  readonly standstillMs: number | null;
}

/**
 * How the guest is brought to stand: a paused one cannot answer, so the host takes it where it stands. One that is to be
 * resumed or is paused gets here only where the host copies on write.
 */
async function standStill(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  options: SaveOptions,
): Promise<StandingStill> {
  const { suspendTimeoutMs: timeoutMs = defaultSuspendTimeoutMs, signal } = options;
  const ready = warmWorkers(encodingLanes);
  if (!info.paused && options.then !== 'resume')
    return suspendGuest(host, lease, info, { timeoutMs, signal, ready });
  await ready;
  return info.paused
    ? snapshotLight(host, lease, info, { readOnce: true })
    : suspendAndSnapshot(host, lease, info, { timeoutMs, signal });
}

/** What follows the commit. Returns true if the guest runs (or may run) again. */
async function settle(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  still: StandingStill,
  then: SaveOptions['then'],
): Promise<boolean> {
  if (then === 'destroy') {
    await still.release();
    await host.destroy(info.domid);
    return false;
  }
  if (then === 'pause' && !info.paused) await host.pause(info.domid);
  if (still.pauseMs === null) await host.resumeInPlace(lease);
  return then === 'resume';
}

/**
 * Saves a domain into a new image file.
 * Errors: DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED, OUTPUT_EXISTS, OUTPUT_INVALID before the guest is touched;
 * SUSPEND_TIMEOUT, NO_SPACE, IMAGE_WRITE_FAILED, PAGE_TABLE_INVALID, CANCELLED after it stopped: it is then resumed and no
 * file keeps the name.
 */
export async function save(
  host: Host,
  selector: string,
  path: string,
  options: SaveOptions,
): Promise<SaveResult> {
  const startedMs = performance.now();
  const info = await host.find(selector);
  requireSavable(info);
  const lease = await host.acquire(info.domid, 'save');
  try {
    const copiesOnWrite = (await host.capabilities())['cow-snapshot'] === true;
    if (info.paused && !copiesOnWrite)
      throw new DormouseError(
        'DOMAIN_WRONG_STATE',
        `${info.name} is paused, so it cannot suspend itself, as it must to be saved here: unpause it first ` +
          '(`checkpoint` takes a light image of it as it is)',
      );
    const live = options.then === 'resume' && !copiesOnWrite;
    const run = live ? saveLive : saveUnderLease;
    return await run(host, lease, info, path, options, startedMs);
  } finally {
    await lease.release();
  }
}

async function saveUnderLease(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  path: string,
  options: SaveOptions,
  startedMs: number,
): Promise<SaveResult> {
  const writer = await newImage(path, await host.geometry(info.domid), 'suspend-point');
  let still: StandingStill | undefined;
  try {
    still = await standStill(host, lease, info, options);
    await writePages(writer, still.source, options);
    const captured = await commitImage(writer, finished(still.source), {
      pauseMs: still.pauseMs ?? 0,
      startedMs,
    });
    const runs = await settle(host, lease, info, still, options.then);
    return {
      ...captured,
      domid: info.domid,
      name: info.name,
      paused: options.then === 'pause' || (options.then === 'resume' && info.paused),
      elapsedMs: performance.now() - startedMs,
      standstillMs: runs ? still.pauseMs : null,
    };
  } catch (thrown) {
    await writer.abandon();
    throw still?.suspended ? afterSuspend(thrown) : thrown;
  } finally {
    await still?.release();
  }
}

/** Saved and resumed where nothing is copied on write: as the cooperative checkpoint does it. */
async function saveLive(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  path: string,
  options: SaveOptions,
  startedMs: number,
): Promise<SaveResult> {
  const geometry = await host.geometry(info.domid);
  const writer = await newImage(path, geometry, 'suspend-point');
  const guest = { suspended: false };
  try {
    await warmWorkers(encodingLanes);
    const timeoutMs = options.suspendTimeoutMs ?? defaultSuspendTimeoutMs;
    const request = { host, lease, info, writer, geometry, options };
    const { source, pauseMs } = await liveSuspended(request, timeoutMs, () => (guest.suspended = true));
    const captured = await commitImage(writer, source, { pauseMs, startedMs });
    const elapsedMs = performance.now() - startedMs;
    const { domid, name } = info;
    return { ...captured, domid, name, paused: false, elapsedMs, standstillMs: pauseMs };
  } catch (thrown) {
    await writer.abandon();
    throw guest.suspended ? afterSuspend(thrown) : thrown;
  }
}

/** `save`: the guest suspends, its image is written, and it is torn down, resumed or left paused. */
import { afterCommit, isPaused, type Then, underLease } from '../capture/after_commit.js';
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
import {
  type Captured,
  commitImage,
  finished,
  type NewImageOptions,
  newImage,
  writePages,
} from '../capture/write_image.js';
import type { Compression } from '../codec/compression.js';
import { type Downtime, Operation, type Phases } from '../domain/operation.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';
import { DormouseError, writingTo } from '../errors.js';
import type { Host, Lease } from '../host/contract.js';
import { realPath } from '../image/file.js';
import type { ImageWriter } from '../image/writer.js';
import { encodingLanes, warmWorkers } from '../worker/pool.js';
import type { DomainInfo } from '../domain/state.js';

export interface SaveOptions extends OperationOptions, NewImageOptions {
  /** What becomes of the domain: torn down as `xl save` does, resumed in place (-c), or left paused (-p). */
  readonly then: Then;
  /** How long the guest may take to suspend. Default 60,000. */
  readonly suspendTimeoutMs?: number;
}

export interface SaveResult {
  readonly path: string;
  readonly imageId: string;
  /** Path of the image that it is an increment of. */
  readonly parent: string | null;
  readonly compression: Compression;
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
  /** What these two are the sums of. */
  readonly phases: Phases;
  readonly downtime: Downtime | null;
}

/**
 * How the guest is brought to stand: a paused one cannot answer, so the host takes it where it stands. One that is to be
 * resumed or is paused gets here only where the host copies on write.
 */
async function standStill({ host, lease, info, options, operation }: Job): Promise<StandingStill> {
  const { suspendTimeoutMs: timeoutMs = defaultSuspendTimeoutMs, signal } = options;
  const ready = warmWorkers(encodingLanes);
  if (!info.paused && options.then !== 'resume')
    return suspendGuest(host, lease, info, { timeoutMs, signal, ready, operation });
  await ready;
  // Whoever unpauses it meanwhile: it does not run on beside an image that is to end it.
  if (info.paused && options.then !== 'resume') await host.holdPaused(lease);
  return info.paused
    ? snapshotLight(host, lease, info, { readOnce: true, operation })
    : suspendAndSnapshot(host, lease, info, { timeoutMs, signal, operation });
}

/** What follows the commit. */
async function settle(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  still: StandingStill,
  then: Then,
): Promise<void> {
  await still.release();
  if (then === 'destroy') {
    await host.destroy(info.domid);
    return;
  }
  // Also where it was paused: somebody may have unpaused it, which the lease held back.
  if (then === 'pause') await host.pause(info.domid);
  if (still.pauseMs === null) await host.resumeInPlace(lease);
}

/**
 * Saves a domain into a new image file.
 * Errors: DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED, OUTPUT_EXISTS, OUTPUT_INVALID before the guest is touched;
 * SUSPEND_TIMEOUT, NO_SPACE, IMAGE_WRITE_FAILED, PAGE_TABLE_INVALID, CANCELLED after it stopped: it is then resumed and no
 * file keeps the name. NOT_SETTLED once the image is there: it is whole, and the guest is not what was asked for. However
 * this process ends, the domain is not left running beside an image that was to end or pause it.
 */
export async function save(
  host: Host,
  selector: string,
  path: string,
  options: SaveOptions,
): Promise<SaveResult> {
  const operation = new Operation();
  const info = await host.find(selector);
  requireSavable(info);
  const take = async (lease: Lease): Promise<SaveResult> => {
    const copiesOnWrite = (await host.capabilities())['cow-snapshot'] === true;
    if (info.paused && !copiesOnWrite)
      throw new DormouseError(
        'DOMAIN_WRONG_STATE',
        `${info.name} is paused, so it cannot suspend itself, as it must to be saved here: unpause it first ` +
          '(`checkpoint` takes a light image of it as it is)',
      );
    const live = options.then === 'resume' && !copiesOnWrite;
    const run = live ? saveLive : saveUnderLease;
    return await run({ host, lease, info, path, options, operation });
  };
  return writingTo(path, () => underLease(host, info, 'save', take));
}

interface Job {
  readonly host: Host;
  readonly lease: Lease;
  readonly info: DomainInfo;
  readonly path: string;
  readonly options: SaveOptions;
  readonly operation: Operation;
}

/** Tells the host what the image decides, before it has its name. */
async function noteEnding({ host, lease, options }: Job, writer: ImageWriter): Promise<void> {
  const { then } = options;
  if (then === 'resume') return;
  await host.noteEnding(lease, { then, path: realPath(writer.path), imageId: writer.imageId });
}

function resultOf(
  { info, operation }: Job,
  captured: Captured,
  stood: Pick<SaveResult, 'paused' | 'standstillMs' | 'downtime'>,
): SaveResult {
  operation.done('settle');
  const { domid, name } = info;
  return { ...captured, domid, name, ...stood, elapsedMs: operation.totalMs, phases: operation.parts() };
}

async function saveUnderLease(job: Job): Promise<SaveResult> {
  const { host, lease, info, path, options, operation } = job;
  const { then } = options;
  const guestEnds = then === 'destroy';
  const geometry = await host.geometry(info.domid);
  const writer = await newImage(path, geometry, 'suspend-point', { ...options, guestEnds });
  let still: StandingStill | undefined;
  let captured: Captured;
  try {
    still = await standStill(job);
    await writePages(writer, still.source, options);
    await noteEnding(job, writer);
    const pauseMs = still.pauseMs ?? 0;
    captured = await commitImage(writer, finished(still.source), {
      pauseMs,
      operation,
      signal: options.signal,
    });
  } catch (thrown) {
    await writer.abandon();
    // What does not let go now is let go with the lease; the first error is the one to tell.
    await still?.release().catch(() => undefined);
    throw still?.suspended ? afterSuspend(thrown) : thrown;
  }
  const { pauseMs, downtime } = still;
  const stands: StandingStill = still;
  await afterCommit({ host, lease, info, path }, then, () => settle(host, lease, info, stands, then));
  const paused = then === 'pause' || (then === 'resume' && (await isPaused(host, info)));
  const ran = then === 'resume';
  const stood = { standstillMs: ran ? pauseMs : null, downtime: ran ? downtime : null };
  return resultOf(job, captured, { paused, ...stood });
}

/** Saved and resumed where nothing is copied on write: as the cooperative checkpoint does it. */
async function saveLive(job: Job): Promise<SaveResult> {
  const { host, lease, info, path, options, operation } = job;
  const geometry = await host.geometry(info.domid);
  const writer = await newImage(path, geometry, 'suspend-point', options);
  const guest = { suspended: false };
  let captured: Captured;
  let stood: Pick<SaveResult, 'standstillMs' | 'downtime'>;
  try {
    await warmWorkers(encodingLanes);
    const timeoutMs = options.suspendTimeoutMs ?? defaultSuspendTimeoutMs;
    const request = { host, lease, info, writer, geometry, options, operation };
    const { source, pauseMs, downtime } = await liveSuspended(
      request,
      timeoutMs,
      () => (guest.suspended = true),
    );
    stood = { standstillMs: pauseMs, downtime };
    captured = await commitImage(writer, source, { pauseMs, operation, signal: options.signal });
  } catch (thrown) {
    await writer.abandon();
    throw guest.suspended ? afterSuspend(thrown) : thrown;
  }
  await afterCommit({ host, lease, info, path }, 'resume', () => Promise.resolve());
  return resultOf(job, captured, { ...stood, paused: await isPaused(host, info) });
}

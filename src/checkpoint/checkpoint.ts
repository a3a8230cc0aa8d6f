/** `checkpoint`: an image of a domain that goes on in place. */
import { afterCommit, isPaused, underLease } from '../capture/after_commit.js';
import {
  afterSuspend,
  defaultSuspendTimeoutMs,
  requireSavable,
  snapshotLight,
  suspendAndSnapshot,
  type StandingStill,
} from '../capture/stand_still.js';
import { type LiveImage, livePaused, type LiveRequest, liveSuspended } from '../capture/live_image.js';
import {
  type Captured,
  commitImage,
  finished,
  type NewImageOptions,
  newImage,
  writePages,
} from '../capture/write_image.js';
import type { Compression } from '../codec/compression.js';
import { type Downtime, Operation, type Phases, snapshotDowntime } from '../domain/operation.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';
import { DormouseError, writingTo } from '../errors.js';
import type { Host, Lease } from '../host/contract.js';
import { encodingLanes, warmWorkers } from '../worker/pool.js';
import type { DomainInfo } from '../domain/state.js';
import type { Consistency } from '../image/format.js';
import type { CheckpointMode } from '../domain/checkpoint_mode.js';

export interface CheckpointOptions extends OperationOptions, NewImageOptions {
  readonly mode: CheckpointMode;
  readonly suspendTimeoutMs?: number;
  /** Told what the image cannot be used for. */
  readonly notice?: (text: string) => void;
}

export interface CheckpointResult {
  readonly path: string;
  readonly imageId: string;
  /** Path of the image that it is an increment of. */
  readonly parent: string | null;
  readonly compression: Compression;
  readonly domid: number;
  readonly name: string;
  /** Whether the domain is paused: by its operator, before or meanwhile. */
  readonly paused: boolean;
  readonly mode: CheckpointMode;
  readonly consistency: Consistency;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  readonly pauseMs: number;
  readonly elapsedMs: number;
  /** What these two are the sums of. */
  readonly phases: Phases;
  readonly downtime: Downtime;
  /** Pages the host copied aside because the guest wrote to them meanwhile. */
  readonly cowPages: number;
  /** Pages copied in the pause, on a host without copy-on-write; else 0. */
  readonly copiedPages: number;
}

/**
 * Writes an image of a running domain, which goes on in place. Light: taken at the suspend point where the host brings the
 * guest there without its help, else of a paused guest (`consistency`).
 * Errors: as `save`; NOT_CONVERGED for a light one of a guest that writes too fast. On every error but NOT_SETTLED the guest
 * runs on and no file keeps the name.
 */
export async function checkpoint(
  host: Host,
  selector: string,
  path: string,
  options: CheckpointOptions,
): Promise<CheckpointResult> {
  const operation = new Operation();
  const info = await host.find(selector);
  requireSavable(info);
  if (options.mode === 'cooperative' && info.paused)
    throw new DormouseError(
      'DOMAIN_WRONG_STATE',
      `${info.name} is paused, so it cannot suspend itself, as it must for a cooperative checkpoint`,
      {
        place: { domid: info.domid },
        advice: 'Unpause it first, or take a light checkpoint of it as it is.',
      },
    );
  const take = async (lease: Lease): Promise<CheckpointResult> => {
    const copiesOnWrite = (await host.capabilities())['cow-snapshot'] === true;
    const run = copiesOnWrite ? takeOfSnapshot : takeLive;
    return await run({ host, lease, info, path, options, operation });
  };
  return writingTo(path, () => underLease(host, info, 'checkpoint', take));
}

interface Job {
  readonly host: Host;
  readonly lease: Lease;
  readonly info: DomainInfo;
  readonly path: string;
  readonly options: CheckpointOptions;
  readonly operation: Operation;
}

function standStill({ host, lease, info, options, operation }: Job): Promise<StandingStill> {
  const { mode, suspendTimeoutMs: timeoutMs = defaultSuspendTimeoutMs, signal } = options;
  return mode === 'light'
    ? snapshotLight(host, lease, info, { readOnce: true, operation })
    : suspendAndSnapshot(host, lease, info, { timeoutMs, signal, operation });
}

async function resultOf(
  { host, info, options, operation }: Job,
  image: Captured &
    Pick<CheckpointResult, 'consistency' | 'pauseMs' | 'downtime' | 'cowPages' | 'copiedPages'>,
): Promise<CheckpointResult> {
  const paused = await isPaused(host, info);
  operation.done('settle');
  const { domid, name } = info;
  const times = { elapsedMs: operation.totalMs, phases: operation.parts() };
  return { ...image, domid, name, paused, mode: options.mode, ...times };
}

async function takeOfSnapshot(job: Job): Promise<CheckpointResult> {
  const { host, info, path, options, operation } = job;
  const writer = await newImage(path, await host.geometry(info.domid), 'suspend-point', options);
  let still: StandingStill | undefined;
  let image: Parameters<typeof resultOf>[1];
  try {
    await warmWorkers(encodingLanes);
    still = await standStill(job);
    await writePages(writer, still.source, options);
    const pauseMs = still.pauseMs ?? 0;
    const downtime = still.downtime ?? snapshotDowntime(pauseMs);
    const cowPages = await still.cowPages();
    const captured = await commitImage(writer, finished(still.source), {
      pauseMs,
      operation,
      signal: options.signal,
    });
    const { consistency } = still.source;
    image = { ...captured, consistency, pauseMs, downtime, cowPages, copiedPages: 0 };
  } catch (thrown) {
    await writer.abandon();
    // What does not let go now is let go with the lease; the first error is the one to tell.
    await still?.release().catch(() => undefined);
    throw still?.suspended ? afterSuspend(thrown) : thrown;
  }
  const taken = still;
  await afterCommit(job, 'resume', () => taken.release());
  return await resultOf(job, image);
}

function captureLive(request: LiveRequest, options: CheckpointOptions): Promise<LiveImage> {
  return options.mode === 'light'
    ? livePaused(request)
    : liveSuspended(request, options.suspendTimeoutMs ?? defaultSuspendTimeoutMs);
}

async function takeLive(job: Job): Promise<CheckpointResult> {
  const { host, lease, info, path, options, operation } = job;
  const geometry = await host.geometry(info.domid);
  const consistency = options.mode === 'light' ? 'paused' : 'suspend-point';
  const writer = await newImage(path, geometry, consistency, options);
  let image: Parameters<typeof resultOf>[1];
  try {
    await warmWorkers(encodingLanes);
    const request = { host, lease, info, writer, geometry, options, operation };
    const { source, pauseMs, downtime, copiedPages } = await captureLive(request, options);
    const captured = await commitImage(writer, source, { pauseMs, operation, signal: options.signal });
    const unfit = source.state.links?.unfit ?? '';
    if (unfit !== '') options.notice?.(`${path} is none to roll back to in place: ${unfit}`);
    image = { ...captured, consistency, pauseMs, downtime, cowPages: 0, copiedPages };
  } catch (thrown) {
    await writer.abandon();
    throw thrown;
  }
  await afterCommit(job, 'resume', () => Promise.resolve());
  return await resultOf(job, image);
}

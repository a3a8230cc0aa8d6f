/** `checkpoint`: an image of a domain that goes on in place. */
import { performance } from 'node:perf_hooks';
import {
  afterSuspend,
  defaultSuspendTimeoutMs,
  requireSavable,
  snapshotLight,
  suspendAndSnapshot,
  type StandingStill,
} from '../capture/stand_still.js';
import { commitImage, newImage, writePages } from '../capture/write_image.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';
import type { DomainInfo, Host, Lease } from '../host/contract.js';
import { warmWorkers } from '../worker/pool.js';

export type CheckpointMode = 'light' | 'cooperative';

export interface CheckpointOptions extends OperationOptions {
  readonly mode: CheckpointMode;
  readonly suspendTimeoutMs?: number;
}

export interface CheckpointResult {
  readonly path: string;
  readonly imageId: string;
  readonly domid: number;
  readonly name: string;
  readonly mode: CheckpointMode;
  readonly consistency: 'suspend-point' | 'paused';
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  readonly pauseMs: number;
  readonly elapsedMs: number;
  /** Pages the host copied aside because the guest wrote to them meanwhile. */
  readonly cowPages: number;
}

/**
 * Writes an image of a running domain, which goes on in place.
 * Errors: as `save`; HOST_LACKS where the host cannot take a light checkpoint. On every error the guest runs on and no
 * file keeps the name.
 */
export async function checkpoint(
  host: Host,
  selector: string,
  path: string,
  options: CheckpointOptions,
): Promise<CheckpointResult> {
  const startedMs = performance.now();
  const info = await host.find(selector);
  requireSavable(info);
  const lease = await host.acquire(info.domid, 'checkpoint');
  try {
    return await checkpointUnderLease(host, lease, info, path, options, startedMs);
  } finally {
    await lease.release();
  }
}

function standStill(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  options: CheckpointOptions,
): Promise<StandingStill> {
  const { mode, suspendTimeoutMs: timeoutMs = defaultSuspendTimeoutMs, signal } = options;
  return mode === 'light'
    ? snapshotLight(host, lease, info, { readOnce: true })
    : suspendAndSnapshot(host, lease, info, { timeoutMs, signal });
}

async function checkpointUnderLease(
  host: Host,
  lease: Lease,
  info: DomainInfo,
  path: string,
  options: CheckpointOptions,
  startedMs: number,
): Promise<CheckpointResult> {
  const writer = await newImage(path, await host.geometry(info.domid), 'suspend-point');
  let still: StandingStill | undefined;
  try {
    await warmWorkers();
    still = await standStill(host, lease, info, options);
    await writePages(writer, still.source, options);
    const pauseMs = still.pauseMs ?? 0;
    const captured = await commitImage(writer, still.source, { pauseMs, startedMs });
    return {
      ...captured,
      domid: info.domid,
      name: info.name,
      mode: options.mode,
      consistency: still.source.consistency,
      pauseMs,
      elapsedMs: performance.now() - startedMs,
      cowPages: await still.cowPages(),
    };
  } catch (thrown) {
    await writer.abandon();
    throw still?.suspended ? afterSuspend(thrown) : thrown;
  } finally {
    await still?.release();
  }
}

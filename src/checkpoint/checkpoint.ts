import type { Host } from '../host/contract.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';

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

/** Writes an image of a running domain, which goes on in place. */
export async function checkpoint(
  _host: Host,
  _selector: string,
  _path: string,
  _options: CheckpointOptions,
): Promise<CheckpointResult> {
  await Promise.resolve();
  throw new Error('being written');
}

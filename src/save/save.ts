import type { Host } from '../host/contract.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';

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
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  /** Whole operation, and the part of it during which no vCPU executed (null if it never ran again). */
  readonly elapsedMs: number;
  readonly standstillMs: number | null;
}

/** Saves a domain into a new image file. */
export async function save(
  _host: Host,
  _selector: string,
  _path: string,
  _options: SaveOptions,
): Promise<SaveResult> {
  await Promise.resolve();
  throw new Error('being written');
}

import type { Host } from '../host/contract.js';
import type { OperationOptions, PageCounts } from '../domain/progress.js';

export interface RestoreOptions extends OperationOptions {
  /** Leave the new domain paused (-p). */
  readonly paused: boolean;
  readonly name?: string;
}

export interface RestoreResult {
  readonly domid: number;
  readonly name: string;
  readonly imageId: string;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly elapsedMs: number;
}

/** Builds a new domain from an image. The image is verified whole before a domain is created; it is never changed. */
export async function restore(_host: Host, _path: string, _options: RestoreOptions): Promise<RestoreResult> {
  await Promise.resolve();
  throw new Error('being written');
}

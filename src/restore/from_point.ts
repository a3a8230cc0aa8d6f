/** `restore` of a point of a store. */
import type { Host } from '../host/contract.js';
import { PointStore } from '../store/store.js';
import { restore, type RestoreOptions, type RestoreResult } from './restore.js';

export interface PointRestoreResult extends RestoreResult {
  /** Of its image. */
  readonly path: string;
  readonly point: string;
}

/**
 * Builds a new domain from the point that `typed` names, of the domain that had that uuid, or at its last point that name. No prune takes
 * its images meanwhile. Errors: as `restore`, POINT_NOT_FOUND, USAGE, and those of a store.
 */
export async function restorePoint(
  host: Host,
  folder: string,
  domain: string,
  typed: string,
  options: RestoreOptions,
): Promise<PointRestoreResult> {
  const points = await (await PointStore.open(folder, { create: false })).find(domain);
  const record = await points.find(typed);
  return await points.reading([record], async ([path = '']) => ({
    ...(await restore(host, path, options)),
    ...{ path, point: record.id },
  }));
}

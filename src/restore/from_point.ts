/** `restore` of a point of a store. */
import { keepersOf } from '../disks/keep.js';
import type { Host } from '../host/contract.js';
import { PointStore } from '../store/store.js';
import { type DiskChoice, requireChoice, withNewDisks } from './disks.js';
import { requireChecked } from './check.js';
import { restore, type RestoreOptions, type RestoreResult } from './restore.js';

export interface PointRestoreOptions extends RestoreOptions, DiskChoice {
  /** What keeps the disks of `command`. */
  readonly program?: string;
}

export interface PointRestoreResult extends RestoreResult {
  /** Of its image. */
  readonly path: string;
  readonly point: string;
  /** Paths of new disks. */
  readonly disks: readonly string[];
}

/**
 * Builds a new domain from the point that `typed` names, of the domain that had that uuid, or at its last point that name. No prune takes
 * its images and disks meanwhile. Errors: as `restore`, POINT_NOT_FOUND, USAGE, those of a store and of disks.
 */
export async function restorePoint(
  host: Host,
  folder: string,
  domain: string,
  typed: string,
  { diskDir, keepDisks = false, program, ...options }: PointRestoreOptions,
): Promise<PointRestoreResult> {
  const store = await PointStore.open(folder, { create: false, keepers: keepersOf(program) });
  const points = await store.find(domain);
  const record = await points.find(typed);
  requireChoice(record, { keepDisks, ...(diskDir !== undefined && { diskDir }) });
  return await points.reading([record], async ([path = '']) => {
    const build = (newDisks: ReadonlyMap<string, string>): Promise<RestoreResult> =>
      restore(host, path, { ...options, newDisks });
    const of = { path, point: record.id };
    if (diskDir === undefined) return { ...(await build(new Map())), ...of, disks: [] };
    const name = options.name ?? record.domain.name;
    return await withNewDisks(
      host,
      points,
      record,
      { diskDir, name },
      {
        check: (newDisks) => requireChecked(host, path, { ...options, newDisks }),
        make: async (disks) => ({ ...(await build(disks)), ...of, disks: [...disks.values()] }),
      },
    );
  });
}

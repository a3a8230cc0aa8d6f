/** `rollback` to a point of a store, which keeps the domain as it was before as a point too. */
import type { Captured } from '../capture/write_image.js';
import type { Host } from '../host/contract.js';
import type { OperationOptions } from '../domain/progress.js';
import { asDormouseError } from '../errors.js';
import { recordOf } from '../protect/record_of.js';
import { type BegunPoint, type DomainPoints, leaves } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';
import { PointStore } from '../store/store.js';
import type { RollbackOptions, SafetyTaken } from './job.js';
import { rollback, type RollbackResult } from './rollback.js';

export interface PointRollbackOptions
  extends OperationOptions, Pick<RollbackOptions, 'keepDisks' | 'leavePaused' | 'touched'> {
  /** Keep the domain as it is before as a point. */
  readonly safety: boolean;
  /** Called when that point is there, before the domain goes back; what it throws leaves the domain as it is. */
  readonly kept?: (safetyPoint: string, path: string) => Promise<void>;
  readonly notice?: (text: string) => void;
}

export interface PointRollbackResult extends RollbackResult {
  readonly point: string;
  readonly safetyPoint: string | null;
}

/** A name for the safety point, leased together with the point that the domain goes back to. POINT_NOT_FOUND. */
async function begin(
  points: DomainPoints,
  record: PointRecord,
): Promise<{ begun: BegunPoint; drop: () => Promise<void> }> {
  const lease = points.lease();
  try {
    const begun = await points.begin(lease, Date.now(), record.image.name);
    if (!begun.parentStays) throw leaves(record);
    return { begun, drop: () => lease.drop() };
  } catch (thrown) {
    await lease.drop().catch(() => undefined);
    throw thrown;
  }
}

/**
 * Takes the domain back to the point that `typed` names in the store in `folder`. The safety point exists before the domain is touched. Points
 * that are taken later go on from the point that it went back to. Errors: as `rollback`, POINT_NOT_FOUND, USAGE, and those of a store.
 */
export async function rollbackToPoint(
  host: Host,
  selector: string,
  folder: string,
  typed: string,
  { safety, ...options }: PointRollbackOptions,
): Promise<PointRollbackResult> {
  const info = await host.find(selector);
  const points = (await PointStore.open(folder, { create: false })).points(info.uuid);
  const record = await points.find(typed);
  const parent = (await points.current())?.id ?? null;
  const { begun, drop } = await begin(points, record);
  try {
    const copiesOnWrite = (await host.capabilities())['cow-snapshot'] === true;
    const consistency = copiesOnWrite ? 'suspend-point' : 'paused';
    const safe = async (image: Captured, { atMs, pauseMs }: SafetyTaken): Promise<void> => {
      const times = { atMs, pauseMs, elapsedMs: pauseMs };
      const occasion = { parent, reason: 'before-rollback', mode: 'light', consistency } as const;
      await points.publish(recordOf(host, info, begun, image, { ...occasion, ...times }));
      await options.kept?.(begun.id, image.path);
    };
    const path = await points.imagePath(record);
    const kept = safety ? { safety: begun.imagePath, safe } : {};
    const done = await rollback(host, String(info.domid), path, { ...options, ...kept });
    // The domain is back: what is not written down is only which point the next one is built on.
    await points
      .wentBack(record.id, Date.now())
      .catch((thrown: unknown) =>
        options.notice?.(`the store does not know of it: ${asDormouseError(thrown).message}`),
      );
    return { ...done, point: record.id, safetyPoint: done.safety === null ? null : begun.id };
  } finally {
    await drop();
  }
}

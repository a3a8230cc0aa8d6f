/** `rollback` to a point of a store, which keeps the domain as it was before as a point too. */
import type { Captured } from '../capture/write_image.js';
import { keepersOf } from '../disks/keep.js';
import { type DiskWay, noDisks } from '../disks/way.js';
import type { DomainInfo } from '../domain/state.js';
import type { Host } from '../host/contract.js';
import type { OperationOptions } from '../domain/progress.js';
import { asDormouseError } from '../errors.js';
import { recordOf } from '../protect/record_of.js';
import type { BegunPoint, DomainPoints } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';
import { PointStore } from '../store/store.js';
import type { TakingDisks } from '../store/taking_disks.js';
import { disksBack, safetyWay } from './disks.js';
import type { RollbackOptions, SafetyTaken } from './job.js';
import { rollback, type RollbackResult } from './rollback.js';

export interface PointRollbackOptions
  extends OperationOptions, Pick<RollbackOptions, 'keepDisks' | 'leavePaused' | 'touched'> {
  /** Keep the domain as it is before as a point. */
  readonly safety: boolean;
  /** How its disks are kept then, and what puts back those that a program keeps; as in the point by default. */
  readonly disks?: DiskWay;
  /** Called when that point is there, before the domain goes back; what it throws leaves the domain as it is. */
  readonly kept?: (safetyPoint: string, path: string) => Promise<void>;
  readonly notice?: (text: string) => void;
}

export interface PointRollbackResult extends RollbackResult {
  readonly point: string;
  readonly safetyPoint: string | null;
  /** Names of the disks that were put back. */
  readonly disks: readonly string[];
}

interface Begun {
  readonly begun: BegunPoint;
  /** Of the safety point. */
  readonly asItIs: {
    readonly parent: string | null;
    readonly consistency: PointRecord['image']['consistency'];
  };
  readonly taking: TakingDisks;
  readonly drop: () => Promise<void>;
}

/**
 * A name for the safety point, leased together with the point that the domain goes back to, and its disks, of which nothing is taken yet.
 * POINT_NOT_FOUND.
 */
async function begin(
  host: Host,
  { domid }: DomainInfo,
  points: DomainPoints,
  record: PointRecord,
  way: DiskWay,
): Promise<Begun> {
  const lease = points.lease();
  try {
    const begun = await points.begin(lease, Date.now(), record.image.name);
    await points.requireStays(record);
    const parent = (await points.current())?.id ?? null;
    const copiesOnWrite = (await host.capabilities())['cow-snapshot'] === true;
    const consistency = copiesOnWrite ? 'suspend-point' : 'paused';
    const disks = way.kind === 'none' ? [] : await host.disks(domid);
    const taking = await points.takeDisks(begun, way, disks);
    return { begun, taking, asItIs: { parent, consistency }, drop: () => lease.drop() };
  } catch (thrown) {
    await lease.drop().catch(() => undefined);
    throw thrown;
  }
}

/** Whether a safety point was published is known once `rollback` is through; before that its disks are nobody's. */
async function goBack(
  host: Host,
  info: DomainInfo,
  points: DomainPoints,
  record: PointRecord,
  { safety, disks: _, ...options }: PointRollbackOptions,
  { begun, taking, asItIs }: Begun,
): Promise<PointRollbackResult> {
  const named = { is: false };
  const safe = async (image: Captured, { atMs, pauseMs }: SafetyTaken): Promise<void> => {
    const times = { atMs, pauseMs, elapsedMs: pauseMs };
    const occasion = { reason: 'before-rollback', mode: 'light', ...asItIs } as const;
    const disks = await taking.finish();
    named.is = true;
    await points.publish(recordOf(host, info, begun, image, { ...occasion, ...times, disks, unfit: '' }));
    await options.kept?.(begun.id, image.path);
  };
  try {
    const back = options.keepDisks === true ? null : await disksBack(host, info, points, record);
    const path = await points.imagePath(record);
    const kept = safety ? { safety: begun.imagePath, safe, ...(taking.keeps && { beside: taking }) } : {};
    const chosen = { ...options, ...kept, ...(back && { keepDisks: true, disks: back }) };
    const done = await rollback(host, String(info.domid), path, chosen);
    const safetyPoint = done.safety === null ? null : begun.id;
    return { ...done, point: record.id, safetyPoint, disks: back?.names ?? [] };
  } finally {
    if (!named.is) await taking.abandon().catch(() => undefined);
  }
}

/**
 * Takes the domain back to the point that `typed` names in the store in `folder`, with its disks if it holds them. The safety point exists before
 * the domain is touched. Points that are taken later go on from the point that it went back to. Errors: as `rollback`, POINT_NOT_FOUND, USAGE,
 * COMMAND_FAILED, and those of a store.
 */
export async function rollbackToPoint(
  host: Host,
  selector: string,
  folder: string,
  typed: string,
  options: PointRollbackOptions,
): Promise<PointRollbackResult> {
  const { keepDisks = false, safety, disks, notice } = options;
  const info = await host.find(selector);
  const keepers = keepersOf(disks?.kind === 'command' ? disks.program : null);
  const points = (await PointStore.open(folder, { create: false, keepers })).points(info.uuid);
  const record = await points.find(typed);
  const way = safety ? safetyWay(record, disks, keepDisks) : noDisks;
  const begun = await begin(host, info, points, record, way);
  try {
    const done = await goBack(host, info, points, record, options, begun);
    // The domain is back: what is not written down is only which point the next one is built on.
    await points
      .wentBack(record.id, Date.now())
      .catch((thrown: unknown) =>
        notice?.(`the store does not know of it: ${asDormouseError(thrown).message}`),
      );
    return done;
  } finally {
    // What was done is done; a lease that stays is dropped once this process is dead.
    await begun.drop().catch(() => undefined);
  }
}

/** `rollback`: a domain goes back in place to what an image holds of it. */
import { performance } from 'node:perf_hooks';
import { type Downtime, Operation, Pause, type Phases } from '../domain/operation.js';
import type { DomainInfo } from '../domain/state.js';
import { rewindingAdvice } from '../domain/states.js';
import { asDormouseError, changed, DormouseError, inFile } from '../errors.js';
import type { Host } from '../host/contract.js';
import { ImageReader } from '../image/reader.js';
import { laneCount } from '../worker/pool.js';
import { Difference, type Plan } from './difference.js';
import { backToPause } from './from_pause.js';
import { backToSuspendPoint } from './from_suspend_point.js';
import { plainGround, safeGround } from './ground.js';
import { requireDisksMayStay } from './disks.js';
import type { Job, RollbackOptions, Stage } from './job.js';
import {
  requireNoObstacle,
  requireOwnImage,
  requireRewrite,
  requireSafetyPossible,
  requireThere,
} from './refuse.js';

export interface RollbackResult {
  readonly path: string;
  readonly domid: number;
  readonly name: string;
  readonly imageId: string;
  /** Path of the safety image. */
  readonly safety: string | null;
  /** Whether the domain is paused now. */
  readonly paused: boolean;
  /** Pages that differed and were put back, and those that were left alone. */
  readonly putPages: number;
  readonly samePages: number;
  readonly pauseMs: number;
  readonly elapsedMs: number;
  /** What these two are the sums of. */
  readonly phases: Phases;
  readonly downtime: Downtime;
}

/** Most readings of the log before the domain is stopped; they end when little is left to be read of the image. */
const mostReadings = 8;
const littleChunks = 2;

/** While the guest runs, where it does: every page is compared, and then what changes meanwhile is followed. */
async function findLive({ ground, memory, difference, options }: Job): Promise<void> {
  difference.look();
  await difference.compare(options);
  let before = Infinity;
  for (let reading = 0; reading < mostReadings; reading++) {
    const logged = await ground.changes();
    if (!logged) return;
    await memory.refresh?.(true);
    difference.merge(logged);
    difference.look();
    const missing = difference.missing();
    await difference.keep(missing);
    if (missing.length <= littleChunks || missing.length >= before) return;
    before = missing.length;
  }
}

/** The domain is held, its safety image written, and all that differs known. Until this returns nothing of it has changed. */
async function stand(job: Job, pause: Pause): Promise<{ plan: Plan; safety: string | null }> {
  const { host, info, ground, memory, difference, options, way } = job;
  if (info.rewinding) return { plan: way.plan(job), safety: null };
  const startedMs = performance.now();
  const [, logged] = await Promise.all([
    pause.until('stop', host.holdPaused(ground.lease)),
    ground.lastChanges(),
  ]);
  memory.catchUp?.(logged !== null);
  pause.done('find');
  const safe = await ground.keepSafe(() => performance.now() - startedMs);
  if (safe.image) await options.safe?.(safe.image, safe.taken());
  pause.done('snapshot');
  if (logged || !way.settlesLater) await difference.settle(logged && [logged, ...safe.logged], options);
  else difference.look();
  const plan = way.plan(job);
  pause.done('find');
  // With its safety image named the rollback is decided.
  if (safe.image === null && options.signal?.aborted)
    throw new DormouseError('CANCELLED', 'cancelled before the domain went back');
  return { plan, safety: safe.image?.path ?? null };
}

/** One that is to be left paused is so from here on, unless nothing of it is changed. */
async function rewind(job: Job, plan: Plan, pause: Pause): Promise<number> {
  const { host, info, options, way } = job;
  // One that was left half rewound stands already, and takes no pause.
  if (options.leavePaused !== true || info.paused || info.rewinding) return way.rewind(job, plan, pause);
  const at: { stage: Stage } = { stage: 'before' };
  const reached = (stage: Stage): void => {
    at.stage = stage;
    job.reached(stage);
  };
  try {
    await host.pause(info.domid);
    return await way.rewind({ ...job, reached }, plan, pause);
  } catch (thrown) {
    if (at.stage === 'before') await host.unpause(info.domid).catch(() => undefined);
    throw thrown;
  }
}

type Done = Omit<RollbackResult, 'path' | 'elapsedMs' | 'phases'>;

async function goBack(job: Job, operation: Operation): Promise<Done> {
  const { host, info, reader } = job;
  await findLive(job);
  // All was compared meanwhile, which may take minutes.
  await job.options.disks?.stillMay();
  await job.ground.prepare();
  operation.done('live');
  const pause = new Pause();
  const { plan, safety } = await stand(job, pause);
  const putPages = await rewind(job, plan, pause);
  operation.done('pause');
  const { domid, name } = info;
  const { paused } = await host.info(domid);
  const samePages = reader.nrPfns - putPages;
  return {
    ...{ domid, name, imageId: reader.imageId, safety, paused, putPages, samePages },
    ...{ pauseMs: pause.totalMs, downtime: pause.parts() },
  };
}

async function withDifference(
  base: Omit<Job, 'way' | 'memory' | 'difference'>,
  operation: Operation,
): Promise<Done> {
  const { host, info, reader } = base;
  if (!host.openToRewrite) throw new DormouseError('INTERNAL', 'the host cannot rewrite');
  const way =
    reader.manifest.consistency === 'paused' ? backToPause(info, reader) : backToSuspendPoint(info, reader);
  const memory = await host.openToRewrite(info.domid);
  try {
    const difference = new Difference(reader, memory.handle, way.from(memory));
    try {
      operation.done('prepare');
      return await goBack({ ...base, way, memory, difference }, operation);
    } finally {
      difference.close();
    }
  } finally {
    memory.close();
  }
}

/** What went wrong, with the state that it left the domain in. */
function told(thrown: unknown, stage: Stage, { name }: DomainInfo, path: string): DormouseError {
  const raw = asDormouseError(thrown);
  const error = raw.code === 'IMAGE_DAMAGED' ? inFile(raw, path) : raw;
  if (stage === 'before' || error.code === 'HOST_DIED' || error.code === 'DOMAIN_NOT_FOUND') return error;
  if (stage === 'whole')
    return changed(error, {
      message: `${name} has gone back, but could not be let go: ${error.message}`,
      guest: 'unknown',
    });
  return changed(error, {
    message: `${error.message}; ${name} is half rewound and stays paused`,
    guest: 'paused',
    advice: rewindingAdvice(name),
  });
}

async function rollBackTo(
  host: Host,
  info: DomainInfo,
  reader: ImageReader,
  path: string,
  options: RollbackOptions,
  operation: Operation,
): Promise<Done> {
  let stage: Stage = info.rewinding ? 'rewinding' : 'before';
  const reached = (now: Stage): void => {
    stage = now;
    options.touched?.();
  };
  try {
    const { safety } = options;
    const ground =
      safety === undefined
        ? await plainGround(host, info)
        : await safeGround(host, info, safety, operation, options);
    let done: Done;
    try {
      done = await withDifference({ host, info, reader, ground, options, reached }, operation);
    } catch (thrown) {
      // The first error is the one to tell; what cannot be undone now is undone by the host.
      await ground.end().catch(() => undefined);
      throw thrown;
    }
    await ground.end();
    return done;
  } catch (thrown) {
    throw told(thrown, stage, info, path);
  }
}

async function requirePossible(
  host: Host,
  info: DomainInfo,
  reader: ImageReader,
  options: RollbackOptions,
): Promise<void> {
  requireOwnImage(host, info, await host.geometry(info.domid), reader);
  await requireDisksMayStay(host, info, options.keepDisks === true);
  await requireNoObstacle(host, info, reader, options);
}

/**
 * Takes a domain back in place to an image of it: memory, page types and registers, and of these only what differs. It keeps its
 * id and its ports, and goes on as paused as it was (or paused, with `leavePaused`); of one that has crashed that is forgotten. The image, its whole chain, is
 * read and checked while the guest runs. A failure, a cancel or the death of the tool before the domain is touched leaves it as
 * it was; after that it stays paused (`rewinding`) until a rollback has made it whole, or it is destroyed.
 * Errors: HOST_LACKS, DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED, NO_MEMORY, IMAGE_NOT_FOUND, IMAGE_READ_FAILED,
 * IMAGE_DAMAGED, IMAGE_INCOMPATIBLE (also: of another domain), IMAGE_NOT_RESTORABLE, PAGE_TABLE_INVALID, CANCELLED; with a
 * safety image also those of `checkpoint`.
 */
export async function rollback(
  host: Host,
  selector: string,
  path: string,
  options: RollbackOptions = {},
): Promise<RollbackResult> {
  const operation = new Operation();
  await requireRewrite(host);
  const info = await host.find(selector);
  requireThere(info);
  if (options.safety !== undefined) requireSafetyPossible(info);
  const reader = await ImageReader.open(path, { lanes: laneCount });
  try {
    await requirePossible(host, info, reader, options);
    const done = await rollBackTo(host, info, reader, path, options, operation);
    operation.done('settle');
    return { path, ...done, elapsedMs: operation.totalMs, phases: operation.parts() };
  } finally {
    reader.close();
  }
}

/**
 * Whether the domain, as it stands, could be taken back in place to that image of it: HOST_LACKS, IMAGE_NOT_RESTORABLE, IMAGE_INCOMPATIBLE if
 * not, and IMAGE_DAMAGED.
 */
export async function requireWayBack(
  host: Host,
  info: DomainInfo,
  path: string,
  options: Pick<RollbackOptions, 'keepDisks'>,
): Promise<void> {
  const reader = await ImageReader.open(path, { lanes: 1, mapOnly: true });
  try {
    await requirePossible(host, info, reader, options);
  } finally {
    reader.close();
  }
}

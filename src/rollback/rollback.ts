/** `rollback`: a domain goes back in place to what an image holds of it. */
import { performance } from 'node:perf_hooks';
import type { Captured } from '../capture/write_image.js';
import { type Downtime, Operation, Pause, type Phases } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import type { DomainInfo } from '../domain/state.js';
import { rewindingAdvice } from '../domain/states.js';
import { asDormouseError, changed, DormouseError, inFile } from '../errors.js';
import type { Host, MemoryView, Rewriter } from '../host/contract.js';
import { ImageReader } from '../image/reader.js';
import { laneCount } from '../worker/pool.js';
import { Difference, type Plan } from './difference.js';
import { type Ground, plainGround, safeGround } from './ground.js';
import { ownEnds, type PvPoint, pvPointOf, pvStateInPlace } from './pv_in_place.js';
import { requireOwnImage, requireRewrite, requireSafetyPossible, requireThere } from './refuse.js';

export interface RollbackOptions extends OperationOptions {
  /** Path of a light image of the domain as it is right before it goes back; it must not exist. Without: there is none. */
  readonly safety?: string;
  /** Called when that image is there, before the domain goes back; what it throws leaves the domain as it is. */
  readonly safe?: (image: Captured, pauseMs: number) => Promise<void>;
}

export interface RollbackResult {
  readonly path: string;
  readonly domid: number;
  readonly name: string;
  readonly imageId: string;
  /** Path of the safety image. */
  readonly safety: string | null;
  /** Whether the domain is paused now, as it was before. */
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

/** `before`: the domain is as it was; `rewinding`: neither that nor what it is to be; `whole`: it is back. */
type Stage = 'before' | 'rewinding' | 'whole';

/** Most readings of the log before the domain is stopped; they end when little is left to be read of the image. */
const mostReadings = 8;
const littleChunks = 2;

interface Job {
  readonly host: Host;
  readonly info: DomainInfo;
  readonly reader: ImageReader;
  /** Null for a domain that is not PV. */
  readonly point: PvPoint | null;
  readonly ground: Ground;
  readonly memory: MemoryView;
  readonly difference: Difference;
  readonly options: RollbackOptions;
  readonly reached: (stage: Stage) => void;
}

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
  const { host, info, ground, memory, difference, options } = job;
  if (info.rewinding) return { plan: difference.plan(true), safety: null };
  const startedMs = performance.now();
  const [, logged] = await Promise.all([
    pause.until('stop', host.holdPaused(ground.lease)),
    ground.lastChanges(),
  ]);
  memory.catchUp?.(logged !== null);
  pause.done('find');
  const safe = await ground.keepSafe(() => performance.now() - startedMs);
  if (safe.image) await options.safe?.(safe.image, performance.now() - startedMs);
  pause.done('snapshot');
  for (const bitmap of [logged, ...safe.logged]) if (bitmap) difference.merge(bitmap);
  if (!logged) {
    difference.look();
    await difference.compare(options);
  }
  await difference.keep(difference.missing());
  const plan = difference.plan(false);
  pause.done('find');
  // With its safety image named the rollback is decided.
  if (safe.image === null && options.signal?.aborted)
    throw new DormouseError('CANCELLED', 'cancelled before the domain went back');
  return { plan, safety: safe.image?.path ?? null };
}

/** A domain that was left half rewound has no page tables to go by: all of them are made again. */
async function beginRewriting(job: Job, { pins: _, ...part }: Plan): Promise<Rewriter> {
  const { host, info, reader, point, ground } = job;
  const { geometry } = reader.manifest;
  if (!host.rewrite) throw new DormouseError('INTERNAL', 'the host cannot rewrite');
  if (!info.rewinding) {
    const rings = point?.rings ?? null;
    const rewriter = await host.rewrite(ground.lease, { ...part, geometry, rings });
    job.reached('rewinding');
    return rewriter;
  }
  const rewriter = await host.rewrite(ground.lease);
  await rewriter.setGeometry(geometry);
  await rewriter.populate(reader.frameRuns());
  return rewriter;
}

/** From here on the domain runs again only once it is whole: nothing is cancelled. Pages that were put back. */
async function rewind(job: Job, plan: Plan, pause: Pause): Promise<number> {
  const { info, reader, point, memory, difference } = job;
  const rewriter = await beginRewriting(job, plan);
  pause.done('state');
  const writing = difference.write();
  const asking = point && ownEnds(rewriter, point);
  const [put, own] = await Promise.allSettled([writing, asking]);
  if (put.status === 'rejected') throw put.reason as Error;
  if (own.status === 'rejected') throw own.reason as Error;
  pause.done('copy');
  const state = point && own.value ? pvStateInPlace(memory.handle, point, own.value) : reader.manifest.state;
  pause.done('state');
  // A domain that was left half rewound is held by nobody's pause but that.
  await rewriter.complete({ pins: plan.pins, state, release: info.rewinding !== true });
  job.reached('whole');
  pause.done('resume');
  return put.value;
}

type Done = Omit<RollbackResult, 'path' | 'elapsedMs' | 'phases'>;

async function goBack(job: Job, operation: Operation): Promise<Done> {
  const { host, info, reader } = job;
  await findLive(job);
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
  base: Pick<Job, 'host' | 'info' | 'reader' | 'ground' | 'options' | 'reached'>,
  operation: Operation,
): Promise<Done> {
  const { host, info, reader } = base;
  if (!host.openToRewrite) throw new DormouseError('INTERNAL', 'the host cannot rewrite');
  const point = info.type === 'pv' ? pvPointOf(reader) : null;
  const memory = await host.openToRewrite(info.domid);
  try {
    const difference = new Difference(reader, memory.handle, point?.startInfoPfn ?? null);
    try {
      operation.done('prepare');
      return await goBack({ ...base, point, memory, difference }, operation);
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
  const reached = (now: Stage) => (stage = now);
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

/**
 * Takes a domain back in place to an image of it: memory, page types and registers, and of these only what differs. It keeps its
 * id and its ports, and goes on as paused as it was; of one that has crashed that is forgotten. The image, its whole chain, is
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
    requireOwnImage(host, info, await host.geometry(info.domid), reader);
    const done = await rollBackTo(host, info, reader, path, options, operation);
    operation.done('settle');
    return { path, ...done, elapsedMs: operation.totalMs, phases: operation.parts() };
  } finally {
    reader.close();
  }
}

/**
 * The image of a running domain on a host without copy-on-write. It is written while the guest runs; then the guest stands
 * still while what changed since is copied into buffers that already exist, and the copies are written when it runs again.
 * A guest that will not run here again has them written at once.
 */
import { native } from '../addon.js';
import { type Downtime, type Operation, Pause, totalMs } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import { DormouseError } from '../errors.js';
import { copyChanges } from '../host/capture_by_calls.js';
import type { Host, Lease, MemoryView } from '../host/contract.js';
import type { PageSink } from '../image/page_sink.js';
import { encodingLanes, pagesPerStep, runOverRange, runPieces } from '../worker/pool.js';
import { type PassKind, passKinds, steps } from '../worker/steps.js';
import { changeFinder, type ChangeFinder } from './change_finder.js';
import { describe, requestSuspend, requireSavable } from './stand_still.js';
import { type Beside, type CaptureSource, finished, type Finished, progressReporter } from './write_image.js';
import type { DomainInfo, DomainState, MemoryGeometry } from '../domain/state.js';
import type { LiveHandle } from '../handle.js';
import { pageBytes } from '../pfn/page_words.js';

/** Pages that may be copied in a pause: 64 MiB, some 5 ms. */
const maxCopiedPages = 16_384;
/** So few changed pages are left to the pause. */
const fewPages = 64;
/** A pass that leaves more than this part of what the one before left is the last. */
const worthwhile = 0.75;
/** Passes over what changed for the sake of a short pause. */
const maxShortPasses = 8;
/** Pauses tried before the guest is held to write too fast. */
const maxPauses = 3;

export interface LiveRequest {
  readonly host: Host;
  readonly lease: Lease;
  readonly info: DomainInfo;
  readonly writer: PageSink;
  /** Of when the writer was made. */
  readonly geometry: MemoryGeometry;
  readonly options: OperationOptions;
  readonly operation: Operation;
}

/** All pages of the domain are in the writer; `source` is for the manifest. */
export interface LiveImage {
  readonly source: Finished;
  /** From before the guest was asked to stop until it was let go. */
  readonly pauseMs: number;
  readonly downtime: Downtime;
  /** Pages copied (or, if they were too many, put) while it stood still. */
  readonly copiedPages: number;
  /** When it stood: what was in its memory then is in the image. Milliseconds since 1970. */
  readonly atMs: number;
}

/** A domain whose changes are followed: mapped, with its log on, and with the set of pages that changed. */
export interface Followed extends Pick<LiveRequest, 'host' | 'lease' | 'info' | 'geometry'> {
  readonly memory: MemoryView;
  readonly finder: ChangeFinder;
  /** Handle of the native live pass. */
  readonly live: LiveHandle;
}

/** One image of it. */
interface Work extends Followed, LiveRequest {
  /** Every page is pending, and nothing was put before. */
  readonly whole: boolean;
  /** Whether the guest may be paused, by the pages that changed during the last pass. */
  readonly mayPause?: (changedPages: number) => boolean;
  readonly beside?: Beside;
}

/** Begins to follow a domain's changes; every page counts as changed. Ended by `unfollow`. */
export async function follow(
  of: Pick<LiveRequest, 'host' | 'lease' | 'info' | 'geometry'>,
  mayCopyPages = maxCopiedPages,
): Promise<Followed> {
  const { host, lease, info, geometry } = of;
  // First of all: from here on the log names every frame that comes.
  const finder = await changeFinder(host, lease);
  let memory: MemoryView | undefined;
  try {
    memory = await host.openMemory(lease.domid);
    const byContent = finder.by === 'content';
    const live = native(() => steps().liveCreate(geometry.nrPfns, byContent, mayCopyPages));
    return { host, lease, info, geometry, memory, finder, live };
  } catch (thrown) {
    memory?.close();
    // What fails here is undone with the lease, and must not hide what failed before.
    await finder.off().catch(() => undefined);
    throw thrown;
  }
}

/** Lets go of all but the lease. LOCKED if the log was not this process's alone: then changes may be missing. */
export async function unfollow({ memory, finder, live }: Followed): Promise<void> {
  steps().liveRelease(live);
  memory.close();
  await finder.off();
}

async function withWork<T>(
  request: LiveRequest,
  mayCopyPages: number,
  body: (work: Work) => Promise<T>,
): Promise<T> {
  const followed = await follow(request, mayCopyPages);
  let result: T;
  try {
    result = await body({ ...request, ...followed, whole: true });
  } catch (thrown) {
    await unfollow(followed).catch(() => undefined);
    throw thrown;
  }
  await unfollow(followed);
  return result;
}

/** One pass over the pending pages, or with `seek` over all that may have changed; returns how many were put. */
export async function passOver(
  work: Omit<Work, 'finder' | 'whole' | 'operation'>,
  kind: PassKind,
): Promise<number> {
  const { options, geometry, writer, live, memory } = work;
  const report = progressReporter(options);
  let putPages = 0;
  let donePages = 0;
  const pieces =
    kind === passKinds.seek
      ? steps().memoryPieces(memory.handle, geometry.nrPfns, pagesPerStep)
      : steps().livePieces(live, memory.handle, pagesPerStep);
  const total = pieces.reduce((sum, [, count]) => sum + count, 0);
  await runPieces({
    lanes: encodingLanes,
    pieces,
    signal: options.signal,
    task: (lane, first, count) => ({
      ...{ step: 'live', live, kind, lane, first, count },
      memory: memory.handle,
      writer: writer.handle,
    }),
    done: (count, counts) => {
      donePages += count;
      putPages += counts?.reduce((sum, n) => sum + n, 0) ?? 0;
      if (options.onProgress) report('pages', donePages, total, writer.storedBytes(), writer.counts());
    },
  });
  return putPages;
}

const pass = (work: Work, kind: PassKind): Promise<number> => passOver(work, kind);

/** A further pass, over what changed; how many pages that were, and whether they are still to be put. */
async function passOverChanged(work: Work, before: number): Promise<{ changed: number; left: boolean }> {
  const { finder, live, memory } = work;
  await memory.refresh?.(finder.by === 'log-dirty');
  await finder.find(live, memory);
  if (finder.by === 'content') return { changed: await pass(work, finder.passKind), left: false };
  const changed = steps().livePending(live);
  if (isLast(changed, before)) return { changed, left: true };
  await pass(work, finder.passKind);
  return { changed, left: false };
}

const isLast = (changed: number, before: number): boolean =>
  changed <= fewPages || (changed <= maxCopiedPages && changed > before * worthwhile);

/** Live passes until another one would not leave fewer pages to the pause. */
async function livePasses(work: Work): Promise<void> {
  work.operation.done('prepare');
  let before = work.geometry.nrPfns;
  if (work.whole) before = await pass(work, passKinds.live);
  for (let i = 1; i < work.finder.maxPasses; i++) {
    const { changed, left } = await passOverChanged(work, before);
    if (left || isLast(changed, before)) return;
    before = changed;
  }
}

/** The same before the guest suspends itself, which is the one time that it is stopped. */
async function untilSuspension(work: Work): Promise<void> {
  await livePasses(work);
  await work.beside?.ready();
  await work.finder.tracker?.prepare();
}

function requireSameSize(geometry: MemoryGeometry, { info, geometry: first }: Work): void {
  if (geometry.nrPfns !== first.nrPfns)
    throw new DormouseError(
      'GUEST_MEMORY_UNREADABLE',
      `the pfn space of ${info.name} grew from ${first.nrPfns} to ${geometry.nrPfns} meanwhile`,
    );
}

/** Whether the p2m lies in the same pfns. */
export const sameP2m = (a: MemoryGeometry, b: MemoryGeometry): boolean =>
  a.p2mFrames.length === b.p2mFrames.length && a.p2mFrames.every((pfn, i) => pfn === b.p2mFrames[i]);

/** The last short passes, over what is known to have changed: the pause is left what changes during the last one. */
async function findBeforePause(work: Work): Promise<void> {
  const { finder, live, memory, mayPause = () => true, info } = work;
  for (let i = 0; i < maxShortPasses; i++) {
    await finder.find(live, memory);
    const changed = steps().livePending(live);
    if (changed > fewPages) await pass(work, passKinds.live);
    if (mayPause(changed)) return;
  }
  throw new DormouseError(
    'NOT_CONVERGED',
    `${info.name} writes too fast for a pause as short as was asked for`,
  );
}

/** One pause. Null if it was in vain: too much had changed, or the p2m was being rebuilt. */
async function tryPause(
  work: Work,
  base: Omit<CaptureSource, 'state' | 'memory'>,
): Promise<LiveImage | null> {
  const { host, lease, finder, live, memory, operation, beside } = work;
  const geometry = await host.geometry(lease.domid);
  requireSameSize(geometry, work);
  await beside?.ready();
  // Without a log the frames that came are looked for now: mapping them would take longer in the pause.
  if (finder.by === 'content') await memory.refresh?.(false);
  await findBeforePause(work);
  await finder.tracker?.prepare();
  operation.done('live');
  let source: Finished | undefined;
  let atMs = 0;
  const stopped = host.captureStopped(lease, {
    ...{ memory, tracker: finder.tracker, live, maxPages: maxCopiedPages },
    // Registers turn canonical before the guest goes on and its frames move.
    standing: (state) => {
      atMs = Date.now();
      source = finished({ ...base, geometry, state, memory });
    },
    ...(beside && { frozen: beside.take }),
  });
  const downtime = await finder.reading(stopped);
  operation.done('pause');
  // One that shut down in between is not what was asked for, and could not go on from its image.
  requireSavable(await host.info(lease.domid));
  const after = await host.geometry(lease.domid);
  requireSameSize(after, work);
  if (!source || !sameP2m(geometry, after)) return null;
  return { source, pauseMs: totalMs(downtime), downtime, copiedPages: steps().liveCopied(live), atMs };
}

/** Puts what was copied; it replaces what the passes had put of the same pages. */
async function putCopied(work: Work, total: number): Promise<void> {
  const { options, writer, live } = work;
  await runOverRange({
    lanes: encodingLanes,
    total,
    stride: pagesPerStep,
    signal: options.signal,
    task: (lane, first, count) => ({ step: 'live-put', live, writer: writer.handle, lane, first, count }),
  });
}

/**
 * Light: the domain is paused and never shut down; consistency `paused`. NOT_CONVERGED if more pages change than may be
 * copied in a pause, PAGE_TABLE_INVALID for a page table that holds a frame which is not the domain's. The guest runs
 * when it returns or throws.
 */
export function livePaused(request: LiveRequest): Promise<LiveImage> {
  return withWork(request, maxCopiedPages, takePaused);
}

/** The same of a domain that is followed already. */
export async function takePaused(work: Work): Promise<LiveImage> {
  const { host, info, geometry } = work;
  const base = await describe(host, info);
  await livePasses(work);
  for (let i = 0; i < maxPauses; i++) {
    const image = await tryPause(work, { ...base, geometry, consistency: 'paused' });
    if (image) {
      await putCopied(work, image.copiedPages);
      return image;
    }
    // What changed is known already: the shorter the pass, the less changes during it.
    await pass(work, passKinds.live);
  }
  const budgetMib = (maxCopiedPages * pageBytes) / 2 ** 20;
  throw new DormouseError(
    'NOT_CONVERGED',
    `${info.name} changes more than ${budgetMib} MiB between a pass over its memory and the pause`,
  );
}

interface Suspended {
  readonly geometry: MemoryGeometry;
  readonly state: DomainState;
  readonly changed: number;
  /** Whether they were copied, to be put once the guest runs, or put at once. */
  readonly copied: boolean;
}

/** The guest is suspended: copies what changed, or puts it at once if that is more than may be copied. */
async function captureSuspended(work: Work, pause: Pause, mayCopyPages: number): Promise<Suspended> {
  const { host, lease, finder, live } = work;
  const [logged, geometry, state] = await Promise.all([
    finder.tracker ? pause.until('find', finder.reading(finder.tracker.peek())) : null,
    host.geometry(lease.domid),
    pause.until('state', host.readState(lease.domid)),
  ]);
  requireSameSize(geometry, work);
  const how = { logged, thorough: true, anywhere: false, maxPages: mayCopyPages };
  const copied = copyChanges(work, pause, how);
  const changed = steps().livePending(live);
  if (!copied) await pass(work, passKinds.standing);
  pause.done('copy');
  return { geometry, state, changed, copied };
}

/**
 * Cooperative: the guest suspends itself only once most is written, and is resumed in place; consistency
 * `suspend-point`. `onSuspended` is called when it stands. Errors: SUSPEND_TIMEOUT, PAGE_TABLE_INVALID and the writer's;
 * a guest left suspended is resumed with the lease.
 */
export function liveSuspended(
  request: LiveRequest,
  timeoutMs: number,
  onSuspended: () => void = () => undefined,
): Promise<LiveImage> {
  return withWork(request, maxCopiedPages, (work) => takeSuspended(work, timeoutMs, onSuspended));
}

/** The same of a domain that is followed already. */
export async function takeSuspended(
  work: Work,
  timeoutMs: number,
  onSuspended: () => void = () => undefined,
): Promise<LiveImage> {
  const { host, lease, info, memory, operation } = work;
  const base = await describe(host, info);
  await untilSuspension(work);
  operation.done('live');
  const pause = new Pause();
  await requestSuspend(host, lease, { timeoutMs, signal: work.options.signal });
  onSuspended();
  pause.done('stop');
  const atMs = Date.now();
  const take = async () => {
    const { geometry, state, ...rest } = await captureSuspended(work, pause, maxCopiedPages);
    const source = finished({ ...base, geometry, state, memory, consistency: 'suspend-point' });
    work.beside?.take();
    pause.done('state');
    return { source, ...rest };
  };
  const { source, changed, copied } = await take().catch(async (thrown: unknown) => {
    // Who keeps the lease for more than this image must not have the guest stand still until its end.
    await host.resumeInPlace(lease).catch(() => undefined);
    throw thrown;
  });
  await host.resumeInPlace(lease);
  pause.done('resume');
  operation.done('pause');
  if (copied) await putCopied(work, changed);
  return { source, pauseMs: pause.totalMs, downtime: pause.parts(), copiedPages: changed, atMs };
}

/** In place of the configuration, which who hands the guest over sends beside the stream. */
export const besideStream = '';

/**
 * For a guest that does not go on here: `suspend` has it stand, and what changed since the live passes is put at once.
 * Nothing resumes it. Consistency `suspend-point`; errors: those of `suspend`, PAGE_TABLE_INVALID and the writer's.
 */
export function liveHandedOver(request: LiveRequest, suspend: () => Promise<void>): Promise<Finished> {
  return withWork(request, 1, async (work) => {
    const { host, info, memory } = work;
    const base = { info, hostKind: host.kind, config: besideStream };
    await untilSuspension(work);
    await suspend();
    const { geometry, state } = await captureSuspended(work, new Pause(), 0);
    return finished({ ...base, geometry, state, memory, consistency: 'suspend-point' });
  });
}

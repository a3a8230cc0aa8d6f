/**
 * Turns a domain that stands still (suspended, paused, or seen through a snapshot) into an image. What `save` and
 * `checkpoint` have in common; neither the memory view nor the domain's run state is changed here.
 */
import { performance } from 'node:perf_hooks';
import type { Compression } from '../codec/compression.js';
import type { Operation } from '../domain/operation.js';
import type { OperationOptions, PageCounts, Phase } from '../domain/progress.js';
import { canonicaliseVcpus } from '../domain/pv_state.js';
import { DormouseError } from '../errors.js';
import type { MemoryView } from '../host/contract.js';
import type { Manifest } from '../image/manifest.js';
import type { PageSink } from '../image/page_sink.js';
import { type CommittedImage, ImageWriter, parentOf } from '../image/writer.js';
import { imageSigner } from '../trust/key_store.js';
import { encodingLanes, pagesPerStep, runPieces } from '../worker/pool.js';
import { openParent } from './parent_image.js';
import { steps } from '../worker/steps.js';
import { version } from '../version.js';
import type { DomainInfo, DomainState, MemoryGeometry } from '../domain/state.js';
import type { Consistency } from '../image/format.js';

/** A domain standing still: what it is, its memory and its registers as the host sees them. */
export interface CaptureSource {
  readonly info: DomainInfo;
  readonly hostKind: string;
  readonly config: string;
  readonly geometry: MemoryGeometry;
  readonly memory: MemoryView;
  readonly state: DomainState;
  readonly consistency: Consistency;
}

/** All of a source that the manifest tells; registers are canonical. */
export type Finished = Omit<CaptureSource, 'memory'>;

export interface Captured {
  readonly path: string;
  readonly imageId: string;
  /** Path of the image that it is an increment of. */
  readonly parent: string | null;
  /** As asked for. */
  readonly compression: Compression;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  /** As what it can be a parent. */
  readonly committed: CommittedImage;
}

/** Reports progress with the elapsed time since it was made. */
export function progressReporter(
  options: OperationOptions,
): (phase: Phase, donePages: number, totalPages: number, storedBytes: number, counts: PageCounts) => void {
  const startedMs = performance.now();
  return (phase, donePages, totalPages, storedBytes, counts) =>
    options.onProgress?.({
      phase,
      donePages,
      totalPages,
      storedBytes,
      counts,
      elapsedMs: performance.now() - startedMs,
    });
}

/** What belongs to the instant of an image and is not in it, as disks: taken while the guest stands, once its memory is safe. */
export interface Beside {
  /** While the guest runs; what can be done before the pause is done now. */
  ready(): Promise<void>;
  /** What it throws fails the image. Called again if the guest has to stand once more. */
  readonly take: () => void;
}

export interface NewImageOptions {
  readonly compression?: Compression;
  /** Path of an image in the same folder: only what is not in it as it is gets stored. */
  readonly incrementalFrom?: string;
  /** The guest ends with the image: an increment's ancestors are read whole before. */
  readonly guestEnds?: boolean;
}

/**
 * Creates the writer of a new image: before the guest is touched, so that a bad path, parent or key costs it nothing.
 * KEY_INVALID; for an increment also what openParent throws.
 */
export async function newImage(
  path: string,
  geometry: MemoryGeometry,
  consistency: Consistency,
  {
    incrementalFrom,
    guestEnds = false,
    compression,
    signal,
  }: NewImageOptions & Pick<OperationOptions, 'signal'>,
): Promise<ImageWriter> {
  const sign = imageSigner();
  const { nrPfns } = geometry;
  const common = {
    nrPfns,
    lanes: encodingLanes,
    consistency,
    ...(sign && { sign }),
    ...(compression && { compression }),
  };
  if (incrementalFrom === undefined) return ImageWriter.create(path, common);
  const reader = await openParent(incrementalFrom, { signed: sign !== null, whole: guestEnds, signal });
  try {
    const increment = { parent: parentOf(reader), closesParent: true, skipUnchanged: true, complete: true };
    return await ImageWriter.create(path, { ...common, ...increment, pageHashes: true });
  } catch (thrown) {
    reader.close();
    throw thrown;
  }
}

/** Writes all pages of the source. The first error is thrown after every lane is idle. */
export async function writePages(
  writer: PageSink,
  source: CaptureSource,
  options: OperationOptions,
): Promise<void> {
  const report = progressReporter(options);
  const total = source.geometry.nrPfns;
  let donePages = 0;
  await runPieces({
    pieces: steps().memoryPieces(source.memory.handle, total, pagesPerStep),
    lanes: encodingLanes,
    signal: options.signal,
    task: (lane, first, count) => ({
      step: 'save',
      memory: source.memory.handle,
      writer: writer.handle,
      lane,
      first,
      count,
    }),
    done: (count) => {
      donePages += count;
      if (options.onProgress) report('pages', donePages, total, writer.storedBytes(), writer.counts());
    },
  });
}

/** The state with PFNs for machine frames; a domain without page tables of its own holds none. */
export function canonicalState(
  source: Pick<CaptureSource, 'state' | 'memory' | 'info' | 'consistency'>,
): DomainState {
  if (source.info.type !== 'pv') return source.state;
  const toPfns = (frames: BigUint64Array): BigUint64Array =>
    steps().framesToPfns(source.memory.handle, frames);
  const suspended = source.consistency === 'suspend-point';
  return { ...source.state, vcpus: canonicaliseVcpus(source.state.vcpus, toPfns, suspended) };
}

/** What is left of a source once its memory is written. */
export function finished({ memory, ...source }: CaptureSource): Finished {
  return { ...source, state: canonicalState({ ...source, memory }) };
}

export function manifestOf(
  source: Finished,
  counts: PageCounts,
  pauseMs: number,
  elapsedMs: number,
): Manifest {
  const { info, geometry, state } = source;
  return {
    tool: `dormouse ${version}`,
    createdAt: new Date().toISOString(),
    consistency: source.consistency,
    hostKind: source.hostKind,
    domain: {
      name: info.name,
      uuid: info.uuid,
      type: info.type,
      vcpus: info.vcpus,
      maxMemoryKib: info.maxMemoryKib,
      config: source.config,
    },
    geometry: { ...geometry, p2mFrames: [...geometry.p2mFrames] },
    state: { ...state, vcpus: [...state.vcpus] },
    pages: counts,
    timings: { pauseUs: Math.round(pauseMs * 1000), elapsedUs: Math.round(elapsedMs * 1000) },
  };
}

/** Commits the image: it has its name only after this returns. CANCELLED if that was asked for before. */
export async function commitImage(
  writer: ImageWriter,
  source: Finished,
  timing: {
    readonly pauseMs: number;
    readonly operation: Operation;
    readonly signal: AbortSignal | undefined;
  },
): Promise<Captured> {
  timing.operation.done('write');
  if (timing.signal?.aborted) throw new DormouseError('CANCELLED', 'cancelled before the image was complete');
  const counts = writer.counts();
  const { pauseMs, operation } = timing;
  const done = await writer.commit(manifestOf(source, counts, pauseMs, operation.totalMs));
  operation.done('commit');
  return {
    path: done.path,
    imageId: done.imageId,
    parent: writer.parent?.path ?? null,
    compression: writer.compression,
    counts,
    memoryBytes: writer.memoryBytes(),
    storedBytes: done.storedBytes,
    committed: done,
  };
}

/**
 * The worker threads, shared by every operation of the process, and the loop that feeds them ranges.
 *
 * One range in flight a lane: a lane is a set of native buffers that one thread at a time may use. There is one lane more
 * than cores for what reads, so that while one waits for the disk the others keep every core busy.
 */
import { availableParallelism } from 'node:os';
import { Piscina } from 'piscina';
import { DormouseError } from '../errors.js';
import type { Piece } from './steps.js';
import type { Task, TaskReply } from './task.js';

/** Lanes of an operation; each costs a writer some 10 MiB of native buffers, a reader 2. */
export const laneCount = Math.min(5, Math.max(2, availableParallelism() + 1));

/** Lanes that only compute (writes go on beside them): one more would cost the others their caches. */
export const encodingLanes = laneCount - 1;

/** Pages a save step works on: 8 MiB, some 10 ms. */
export const pagesPerStep = 2048;
/** Chunks (up to 1 MiB of pages each) a restore or check step works on. */
export const chunksPerStep = 8;

let pool: Piscina | undefined;

function workers(): Piscina {
  pool ??= new Piscina({
    filename: new URL('./task.js', import.meta.url).href,
    // Threads are started when there is work for them, and stay.
    minThreads: 0,
    maxThreads: laneCount,
    idleTimeout: Infinity,
    concurrentTasksPerWorker: 1,
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
  });
  return pool;
}

/** Waits until as many threads have loaded the addon, before a guest is stopped for what they will do. */
export async function warmWorkers(lanes = laneCount): Promise<void> {
  const started = pool;
  if (started) return;
  const fresh = workers();
  await Promise.all(Array.from({ length: lanes }, () => fresh.run({ step: 'warm' } satisfies Task)));
}

/** Ends the threads; the next operation starts new ones. */
export async function closeWorkers(): Promise<void> {
  const closing = pool;
  pool = undefined;
  await closing?.destroy();
}

interface Work {
  /** Lanes to use; at most laneCount. */
  readonly lanes?: number;
  readonly signal?: AbortSignal | undefined;
  task(lane: number, first: number, count: number): Task;
  /** Called on the main thread as each range ends. */
  done?(count: number, counts: number[] | null): void;
}

export interface RangeWork extends Work {
  /** The range is [0, total), handed out `stride` at a time. */
  readonly total: number;
  readonly stride: number;
}

export interface PiecesWork extends Work {
  readonly pieces: readonly Piece[];
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new DormouseError('CANCELLED', 'cancelled');
}

/** As runPieces, over a whole range. */
export function runOverRange({ total, stride, ...work }: RangeWork): Promise<void> {
  const pieces = Array.from(
    { length: Math.ceil(total / stride) },
    (_, i) => [i * stride, Math.min(stride, total - i * stride)] as const,
  );
  return runPieces({ ...work, pieces });
}

/**
 * Runs a step over each piece. Returns when every lane is idle, also on failure: the first error is thrown only then,
 * so that nothing still uses what the caller is about to release. Throws CANCELLED on abort.
 */
export async function runPieces(work: PiecesWork): Promise<void> {
  const left = work.pieces.values();
  let failure: unknown;
  const runLane = async (lane: number): Promise<void> => {
    // One iterator for all lanes: each piece goes to the first that is free.
    for (const [first, count] of left) {
      throwIfAborted(work.signal);
      const reply = (await workers().run(work.task(lane, first, count))) as TaskReply;
      if (!reply.ok) throw new DormouseError(reply.code, reply.message, { place: reply.place });
      work.done?.(count, reply.counts);
      if (failure !== undefined) return;
    }
  };
  const lanes = Math.min(work.lanes ?? laneCount, work.pieces.length);
  await Promise.all(
    Array.from({ length: lanes }, (_, lane) =>
      runLane(lane).catch((thrown: unknown) => {
        failure ??= thrown;
      }),
    ),
  );
  if (failure !== undefined) throw failure as Error;
  throwIfAborted(work.signal);
}

/** `protect`: stays with a domain and takes a point of it again and again, until it is told to stop. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Compression } from '../codec/compression.js';
import type { CheckpointMode } from '../domain/checkpoint_mode.js';
import type { OperationOptions } from '../domain/progress.js';
import type { DomainInfo } from '../domain/state.js';
import { asDormouseError, DormouseError, type ErrorCode } from '../errors.js';
import type { DiskWay } from '../disks/way.js';
import { keepersOf } from '../disks/keep.js';
import type { Host } from '../host/contract.js';
import type { PointRecord } from '../store/record.js';
import type { Retention } from '../store/retention.js';
import { PointStore } from '../store/store.js';
import { restMs, retryMs } from './pace.js';
import { PauseBudget } from './pause_budget.js';
import { PointSession, type TakenPoint } from './point_session.js';
import { StoreRoom } from './store_room.js';

export interface ProtectOptions extends Pick<OperationOptions, 'onProgress'> {
  /** From the start of one point to the start of the next, if it can be kept up. */
  readonly everyMs: number;
  /** Points; default: without end. */
  readonly count?: number;
  readonly mode: CheckpointMode;
  readonly reason: PointRecord['reason'];
  readonly compression?: Compression;
  /** As of a point; default: unless there is to be but one, which can rest on nothing. */
  readonly deltas?: boolean;
  readonly suspendTimeoutMs?: number;
  readonly retention: Retention;
  /** How the disks that the domain writes to are kept; not at all by default. */
  readonly disks?: DiskWay;
  readonly maxPauseMs?: number;
  /** Of a point whose pause would be longer than maxPauseMs. */
  readonly overBudget: 'take' | 'skip';
  readonly maxBytes?: number;
  /** Room that is left to others on the store's disk. */
  readonly minFreeBytes: number;
  /** What may pass is tried again; else the first failure is thrown. */
  readonly patient: boolean;
  /** Told to stop: a point that is being taken is dropped. */
  readonly signal: AbortSignal;
  readonly onPoint?: (taken: TakenPoint, late: boolean) => void;
  readonly notice?: (text: string) => void;
}

export interface ProtectResult {
  readonly domid: number;
  readonly name: string;
  readonly points: number;
  /** Of those that were wanted and not taken. */
  readonly skipped: number;
  readonly failed: number;
  readonly storedBytes: number;
  readonly longestPauseMs: number;
  readonly elapsedMs: number;
  readonly ended: 'count' | 'told';
}

/** What may be over by the next point: the store, or whoever else works on the domain or its log. */
const passing: readonly ErrorCode[] = [
  ...(['NO_SPACE', 'IMAGE_WRITE_FAILED', 'IMAGE_READ_FAILED', 'OUTPUT_EXISTS', 'OUTPUT_INVALID'] as const),
  ...([
    'LOCKED',
    'NOT_CONVERGED',
    'GUEST_MEMORY_UNREADABLE',
    'PAGE_TABLE_INVALID',
    'SUSPEND_TIMEOUT',
  ] as const),
  ...([
    'COMMAND_FAILED',
    'NO_MEMORY',
    'STORE_DAMAGED',
    'IMAGE_NOT_FOUND',
    'IMAGE_DAMAGED',
    'IMAGE_INCOMPATIBLE',
  ] as const),
];
/** A domain that reboots is gone for a while. */
const gone: readonly ErrorCode[] = ['DOMAIN_NOT_FOUND', 'DOMAIN_WRONG_STATE'];
const rebootMs = 30_000;

class Protection {
  #session: PointSession | null = null;
  #failures = 0;
  #goneSinceMs: number | null = null;
  #points = 0;
  #skipped = 0;
  #failed = 0;
  #storedBytes = 0;
  #longestPauseMs = 0;
  readonly #startedMs = performance.now();
  readonly #budget: PauseBudget | null;
  readonly #room: StoreRoom;

  constructor(
    private readonly host: Host,
    private readonly info: DomainInfo,
    private readonly store: PointStore,
    private readonly options: ProtectOptions,
  ) {
    this.#budget = options.maxPauseMs === undefined ? null : new PauseBudget(options.maxPauseMs);
    const { retention, maxBytes = Infinity, minFreeBytes } = options;
    const limits = { retention, maxBytes, minFreeBytes };
    this.#room = new StoreRoom(store.points(info.uuid), store.shelf, limits, (text) => this.#notice(text));
  }

  #notice(text: string): void {
    this.options.notice?.(text);
  }

  async run(): Promise<ProtectResult> {
    const { everyMs, count = Infinity, signal } = this.options;
    await this.#room.begin();
    try {
      while (this.#points < count && !signal.aborted) {
        const startedMs = performance.now();
        const failed = await this.#one();
        const tookMs = performance.now() - startedMs;
        if (this.#points >= count) break;
        const wait = failed ? retryMs(everyMs, this.#failures) : restMs(everyMs, tookMs);
        await sleep(wait, undefined, { signal }).catch(() => undefined);
      }
    } finally {
      await this.#end();
    }
    if (!this.options.patient && this.#points < count)
      throw new DormouseError('CANCELLED', 'cancelled between two points');
    const { domid, name } = this.info;
    return {
      ...{ domid, name, points: this.#points, skipped: this.#skipped, failed: this.#failed },
      ...{ storedBytes: this.#storedBytes, longestPauseMs: this.#longestPauseMs },
      elapsedMs: performance.now() - this.#startedMs,
      ended: signal.aborted && this.#points < count ? 'told' : 'count',
    };
  }

  /** One point; whether it failed in a way that may pass. */
  async #one(): Promise<boolean> {
    try {
      await this.#take();
      [this.#failures, this.#goneSinceMs] = [0, null];
      return false;
    } catch (thrown) {
      const error = asDormouseError(thrown);
      if (!this.options.patient) throw error;
      if (this.options.signal.aborted && error.code === 'CANCELLED') return false;
      if (gone.includes(error.code)) await this.#lost(error);
      else if (!passing.includes(error.code)) throw error;
      else return await this.#mayPass(error);
      this.#failures++;
      return true;
    }
  }

  /** Whether it is to be tried later and later: a point that is skipped is one of many. */
  async #mayPass(error: DormouseError): Promise<boolean> {
    this.#notice(`no point was taken: ${error.message}`);
    if (error.code === 'NOT_CONVERGED') {
      this.#skipped++;
      this.#budget?.skipped();
      return false;
    }
    this.#failed++;
    this.#failures++;
    // What was known of the domain is what failed: it begins anew.
    if (['LOCKED', 'GUEST_MEMORY_UNREADABLE'].includes(error.code)) await this.#end();
    return true;
  }

  /** The domain is gone: another of its uuid may come, as after a reboot. */
  async #lost(error: DormouseError): Promise<void> {
    await this.#end();
    const nowMs = performance.now();
    if (this.#goneSinceMs === null && this.#points > 0)
      this.#notice(`${this.info.name} is gone; waiting ${rebootMs / 1000} s for it to come back`);
    this.#goneSinceMs ??= this.#points > 0 ? nowMs : -Infinity;
    if (nowMs - this.#goneSinceMs > rebootMs) throw error;
  }

  async #take(): Promise<void> {
    const { host, options, store } = this;
    this.#session ??= await PointSession.open(host, this.info.uuid, store, (text) => this.#notice(text));
    const session = this.#session;
    const budget = this.#budget;
    await this.#room.make(session.chainId);
    const { mode, reason, compression, suspendTimeoutMs, signal, overBudget, disks } = options;
    const taken = await session.take({
      ...{ mode, signal, reason, whole: this.#room.beginsChain(session.chainId) },
      ...(options.onProgress && { onProgress: options.onProgress }),
      ...(disks && { disks }),
      ...(compression && { compression }),
      deltas: options.deltas ?? options.count !== 1,
      ...(suspendTimeoutMs !== undefined && { suspendTimeoutMs }),
      ...(budget && overBudget === 'skip' && { mayPause: (pages) => budget.fits(pages) }),
    });
    this.#took(taken);
    // The point is there, whatever becomes of its elders.
    await this.#room
      .took(taken.record)
      .catch((thrown: unknown) => this.#notice(asDormouseError(thrown).message));
  }

  #took(taken: TakenPoint): void {
    const { pauseMs, image } = taken.record;
    this.#points++;
    this.#storedBytes += image.storedBytes;
    this.#longestPauseMs = Math.max(this.#longestPauseMs, pauseMs);
    this.#budget?.learn(taken.copiedPages, pauseMs);
    this.options.onPoint?.(taken, this.#budget !== null && pauseMs > this.#budget.maxMs);
  }

  async #end(): Promise<void> {
    const session = this.#session;
    this.#session = null;
    // What does not let go now is let go with the lease.
    await session?.end().catch((thrown: unknown) => this.#notice(asDormouseError(thrown).message));
  }
}

/**
 * Takes points of the domain into the store in that folder, made if there is none. What may pass (a full or absent store, a domain that reboots, another tool at work on
 * it) is told and tried again, later each time; the guest runs on whatever happens. Errors: DOMAIN_NOT_FOUND, also 30 s after
 * the domain went; USAGE; STORE_INVALID; those that cannot pass.
 */
export async function protect(
  host: Host,
  selector: string,
  folder: string,
  options: ProtectOptions,
): Promise<ProtectResult> {
  const info = await host.find(selector);
  if (options.overBudget === 'skip' && options.maxPauseMs === undefined)
    throw new DormouseError(
      'USAGE',
      'what is over the budget is skipped where there is one: give --max-pause',
    );
  const keepers = keepersOf(options.disks?.kind === 'command' ? options.disks.program : null);
  const store = await PointStore.open(folder, { create: true, keepers });
  return await new Protection(host, info, store, options).run();
}

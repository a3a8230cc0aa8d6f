/**
 * To stay with one domain: its lease, its mapping, its tracker, the set of pages that changed and what the images hold are
 * kept from the first image to the last. Each image is an epoch, begun by `take` and ended by whoever wrote it: committed
 * once the image exists, aborted if it does not. What an aborted epoch took is pending again, so that the next image
 * holds it.
 */
import { native } from '../addon.js';
import { type Downtime, Operation, Pause, snapshotDowntime } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import type { DomainInfo, MemoryGeometry } from '../domain/state.js';
import { DormouseError } from '../errors.js';
import type { Host, Lease, OperationKind, Snapshot, Tracker } from '../host/contract.js';
import type { PageSink } from '../image/page_sink.js';
import { passKinds, steps } from '../worker/steps.js';
import {
  follow,
  type Followed,
  type LiveImage,
  passOver,
  takePaused,
  takeSuspended,
  unfollow,
} from './live_image.js';
import { defaultSuspendTimeoutMs, describe, requestSuspend, requireSavable } from './stand_still.js';
import { type Beside, finished, type Finished } from './write_image.js';
import type { LiveHandle } from '../handle.js';
import type { ChangeFinder } from './change_finder.js';
import type { CheckpointMode } from '../domain/checkpoint_mode.js';

export interface TakeHow extends OperationOptions {
  readonly mode: CheckpointMode;
  /** Every page, for an image of its own; else those that changed since the last committed one. The first is whole. */
  readonly whole: boolean;
  /** Of a cooperative one. Default 60,000. */
  readonly suspendTimeoutMs?: number;
  /**
   * Of a light one without copy-on-write: asked before a pause, with the pages that changed during the last pass. If not, one more pass
   * goes over them; NOT_CONVERGED after some.
   */
  readonly mayPause?: (changedPages: number) => boolean;
  readonly beside?: Beside;
}

export interface Taken extends LiveImage {
  /** Pages the host copied aside because the guest wrote to them meanwhile. */
  readonly cowPages: number;
  /** What the host's log named at this instant, since the take before; null where there is none, or it copies by passes. */
  readonly logged: Buffer | null;
}

/** What is kept where the host copies on write: its log says what changed, each snapshot is read once. */
interface Frozen {
  readonly tracker: Tracker;
  readonly live: LiveHandle;
}

export class CaptureSession {
  readonly #stopWatching: () => void;
  #followed: Followed | undefined;
  #frozen: Frozen | undefined;
  #epoch: 'none' | 'open' = 'none';
  #committed = false;
  #taking = false;
  #gone = false;

  private constructor(
    readonly host: Host,
    readonly lease: Lease,
    readonly info: DomainInfo,
    readonly geometry: MemoryGeometry,
    readonly copiesOnWrite: boolean,
  ) {
    this.#stopWatching = host.onEvent((event) => {
      const ends = event.type === 'dying' || event.type === 'released';
      if (!ends || event.domid !== info.domid) return;
      this.#gone = true;
      if (!this.#taking) void this.#letGo().catch(() => undefined);
    });
  }

  /** Takes the domain's lease. DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED. */
  static async open(host: Host, selector: string, operation: OperationKind): Promise<CaptureSession> {
    const info = await host.find(selector);
    requireSavable(info);
    const lease = await host.acquire(info.domid, operation);
    try {
      const [geometry, capabilities] = [await host.geometry(info.domid), await host.capabilities()];
      return new CaptureSession(host, lease, info, geometry, capabilities['cow-snapshot'] === true);
    } catch (thrown) {
      await lease.release();
      throw thrown;
    }
  }

  /**
   * Puts the domain as it is at one instant into `sink`: all of it, or what changed since the last committed epoch. The
   * guest goes on as it was. The epoch stays open until it is committed or aborted; a take that fails is aborted.
   * Errors: as `checkpoint`, and GUEST_MEMORY_UNREADABLE if the pfn space grew since the session began.
   */
  async take(sink: PageSink, how: TakeHow): Promise<Taken> {
    if (this.#epoch === 'open') throw new DormouseError('INTERNAL', 'the epoch before was not ended');
    this.#requireThere();
    this.#taking = true;
    try {
      await this.#prepare();
      this.#epoch = 'open';
      native(() => steps().liveBeginEpoch(this.#live, how.whole || !this.#committed));
      return await (this.#frozen ? this.#takeFrozen(this.#frozen, sink, how) : this.#takeLive(sink, how));
    } catch (thrown) {
      this.abortEpoch();
      throw thrown;
    } finally {
      this.#taking = false;
      if (this.#gone) await this.#letGo().catch(() => undefined);
    }
  }

  /** The image exists: the next one holds what changes from its instant on. */
  commitEpoch(): void {
    this.#endEpoch(true);
    this.#committed = true;
  }

  /** There is no such image: what it took belongs to the next one. Nothing to do where no epoch is open. */
  abortEpoch(): void {
    this.#endEpoch(false);
  }

  /** What the host's log names since the last take; null where the host does not copy on write. */
  async loggedSince(): Promise<Buffer | null> {
    return this.#frozen ? await this.#frozen.tracker.peek() : null;
  }

  /** Unmaps and gives the domain back. LOCKED if another tool took from the dirty log meanwhile. */
  async end(): Promise<void> {
    this.#stopWatching();
    try {
      await this.#letGo();
    } finally {
      await this.lease.release();
    }
  }

  /** Whether a take that is not whole would hold only what changed. */
  get continues(): boolean {
    return this.#committed && !this.#gone;
  }

  get #live(): LiveHandle {
    const live = this.#followed?.live ?? this.#frozen?.live;
    if (live === undefined) throw new DormouseError('INTERNAL', 'the session holds nothing of its domain');
    return live;
  }

  #requireThere(): void {
    const { name, domid } = this.info;
    if (this.#gone) throw new DormouseError('DOMAIN_NOT_FOUND', `${name} is gone`, { place: { domid } });
  }

  async #prepare(): Promise<void> {
    if (this.#followed ?? this.#frozen) return;
    const { host, lease, info, geometry } = this;
    if (!this.copiesOnWrite) {
      this.#followed = await follow({ host, lease, info, geometry });
      return;
    }
    const tracker = await host.tracker(lease);
    const live = native(() => steps().liveCreate(geometry.nrPfns, false, 1));
    this.#frozen = { tracker, live };
  }

  #endEpoch(committed: boolean): void {
    if (this.#epoch === 'none') return;
    this.#epoch = 'none';
    if (this.#followed ?? this.#frozen) native(() => steps().liveEndEpoch(this.#live, committed));
  }

  async #takeLive(writer: PageSink, how: TakeHow): Promise<Taken> {
    const followed = this.#followed;
    if (!followed) throw new DormouseError('INTERNAL', 'the session follows nothing');
    const finder = this.#minding(followed.finder);
    const operation = new Operation();
    const work = {
      ...followed,
      finder,
      writer,
      operation,
      options: how,
      whole: how.whole || !this.#committed,
      ...(how.mayPause && { mayPause: how.mayPause }),
      ...(how.beside && { beside: how.beside }),
    };
    const timeoutMs = how.suspendTimeoutMs ?? defaultSuspendTimeoutMs;
    const image = how.mode === 'light' ? await takePaused(work) : await takeSuspended(work, timeoutMs);
    return { ...image, cowPages: 0, logged: null };
  }

  /**
   * A log that could not be read may have been cleared all the same: then nothing is known of what changed. Of a pause that failed it
   * is not told whether it was the log.
   */
  #minding(finder: ChangeFinder): ChangeFinder {
    const orForget = <T>(read: Promise<T>): Promise<T> =>
      read.catch((thrown: unknown) => {
        this.#committed = false;
        throw thrown;
      });
    return {
      ...finder,
      find: (live, memory) => orForget(finder.find(live, memory)),
      reading: orForget,
    };
  }

  async #snapshot({
    mode,
    signal,
    suspendTimeoutMs = defaultSuspendTimeoutMs,
    beside,
  }: TakeHow): Promise<{ snapshot: Snapshot; downtime: Downtime; pauseMs: number }> {
    const { host, lease } = this;
    await beside?.ready();
    const how = { readOnce: true, frozen: beside?.take };
    if (mode === 'light') {
      const snapshot = await host.snapshot(lease, how);
      const pauseMs = snapshot.pauseNs / 1e6;
      return { snapshot, pauseMs, downtime: snapshotDowntime(pauseMs) };
    }
    const pause = new Pause();
    await requestSuspend(host, lease, { timeoutMs: suspendTimeoutMs, signal });
    pause.done('stop');
    const snapshot = await host.snapshot(lease, how).catch(async (thrown: unknown) => {
      await host.resumeInPlace(lease).catch(() => undefined);
      throw thrown;
    });
    pause.done('snapshot');
    await host.resumeInPlace(lease).catch(async (thrown: unknown) => {
      await snapshot.release();
      throw thrown;
    });
    pause.done('resume');
    return { snapshot, pauseMs: pause.totalMs, downtime: pause.parts() };
  }

  async #takeFrozen({ live }: Frozen, writer: PageSink, how: TakeHow): Promise<Taken> {
    const { host, lease, info, geometry: first } = this;
    const describing = describe(host, info);
    describing.catch(() => undefined); // it is waited for when the snapshot is there, which must be released then
    // To suspend costs the guest more than a snapshot: not before this is known.
    if (how.mode !== 'light') await describing;
    const committed = this.#committed;
    // Until it is known what the log held when it began anew, nothing is known of what changed.
    this.#committed = false;
    const { snapshot, pauseMs, downtime } = await this.#snapshot(how);
    const atMs = Date.now();
    let counting: Promise<number> | undefined;
    let source: Finished;
    try {
      const { memory, geometry, state, dirty } = snapshot;
      if (dirty) native(() => steps().liveMerge(live, memory.handle, dirty));
      this.#committed = committed;
      if (geometry.nrPfns !== first.nrPfns)
        throw new DormouseError('GUEST_MEMORY_UNREADABLE', `the pfn space of ${info.name} grew meanwhile`);
      const base = await describing;
      await passOver({ host, lease, info, geometry, memory, live, writer, options: how }, passKinds.standing);
      source = finished({ ...base, geometry, state, memory, consistency: 'suspend-point' });
      // Asked for before the release, which need not wait for the answer.
      counting = snapshot.cowPages();
      counting.catch(() => undefined);
    } finally {
      await snapshot.release();
    }
    return {
      source,
      pauseMs,
      downtime,
      copiedPages: 0,
      atMs,
      cowPages: await counting,
      logged: snapshot.dirty,
    };
  }

  /** Everything that is held of the domain but the lease: a mapping would keep one that died from going. */
  async #letGo(): Promise<void> {
    const [followed, frozen] = [this.#followed, this.#frozen];
    this.#followed = this.#frozen = undefined;
    this.#epoch = 'none';
    this.#committed = false;
    if (followed) await unfollow(followed);
    if (!frozen) return;
    steps().liveRelease(frozen.live);
    await frozen.tracker.off();
  }
}

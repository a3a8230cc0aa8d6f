/** Pauses of a domain on Xen, each noted in its lease's journal before it begins. */
import { Buffer } from 'node:buffer';
import { availableParallelism } from 'node:os';
import { native } from '../../addon.js';
import type { Downtime } from '../../domain/operation.js';
import type { DomainLinks, DomainState } from '../../domain/state.js';
import type { XenMemoryHandle } from '../../handle.js';
import { DormouseError } from '../../errors.js';
import { steps } from '../../worker/steps.js';
import type { StoppedCapture } from '../contract.js';
import { hasFlag } from './domain_flags.js';
import type { XenLease } from './leases.js';
import type { NativeLinks, RingEnds, XenNative } from './native.js';

/** What is looked up before a pause. */
export interface KnownBefore {
  readonly rings: RingEnds;
  readonly devices: string;
  /** Why the domain could not go back to this instant whatever is seen of it; else empty. */
  readonly unfit: string;
  readonly start: string;
  /** As `captureStopped` of the native half has them. */
  readonly ringPages: BigUint64Array;
  readonly eventPages: BigUint64Array;
}

const nothing = Buffer.alloc(0);
const noLinks = { grants: nothing, channels: nothing, eventArrayPfn: 0, rings: nothing };

function linksOf(seen: NativeLinks, { unfit, devices, start }: KnownBefore): DomainLinks {
  if (seen.unfit !== '') return { ...seen, devices: '', start };
  if (unfit !== '') return { ...noLinks, unfit, devices: '', start };
  return { ...seen, devices, start };
}

export class XenPauses {
  readonly #api: XenNative;
  readonly #notice: (text: string) => void;

  constructor(api: XenNative, notice: (text: string) => void) {
    this.#api = api;
    this.#notice = notice;
  }

  /** `holdPaused` of the contract. `memory` shows where the vCPUs stand; `rings` where nothing may be on its way. */
  hold(held: XenLease, memory: XenMemoryHandle | null, rings: RingEnds | null): void {
    const { domid } = held;
    // Ours is one more of the pauses that Xen counts: somebody else's stays.
    const line = this.isPaused(domid) ? 'pause over' : 'pause';
    const { inShadow, atRest } = this.#pausing(held, line, (stands) => {
      const found = this.#api.pauseOutsideShadow(domid, memory, stands, rings);
      if (found.atRest) return found;
      this.#api.unpause(domid);
      stands[0] = 0;
      return found;
    });
    if (!atRest) {
      held.strike(line);
      throw new DormouseError(
        'DOMAIN_WRONG_STATE',
        `domain ${domid} is asking something of xenstore, or being told, all the time: it could not be stopped between two questions`,
        { place: { domid }, advice: 'Try again.' },
      );
    }
    this.#tellShadow(domid, inShadow);
    this.#sure(held, line);
  }

  /**
   * `captureStopped` of the contract, of a domain that nobody else has paused. What cannot be taken back is for the lease's end.
   */
  capture(
    held: XenLease,
    mapped: XenMemoryHandle,
    { memory, tracker, live, maxPages, standing, frozen }: StoppedCapture,
    known: KnownBefore,
  ): Downtime {
    const { rings, eventPages, ringPages } = known;
    const { domid } = held;
    const how = { thorough: false, anywhere: true, maxPages, threads: availableParallelism() };
    const { inShadow, ...parts } = this.#pausing(held, 'pause', (stands) => {
      const work = steps().exportCapture(live, memory.handle, { ...how, logged: tracker !== null });
      const whole = (state: DomainState, links: NativeLinks): void => {
        standing({ ...state, links: linksOf(links, known) });
        frozen?.();
      };
      return this.#api.captureStopped(domid, mapped, work, eventPages, whole, stands, rings, ringPages);
    });
    held.strike('pause');
    this.#tellShadow(domid, inShadow);
    return { ...parts, snapshotMs: 0 };
  }

  isPaused(domid: number): boolean {
    return hasFlag(native(() => this.#api.domain(domid)).flags, 'paused');
  }

  /** The pause is in force. */
  #sure(held: XenLease, line: 'pause' | 'pause over'): void {
    if (line === 'pause') return;
    held.note('pause');
    held.strike(line);
  }

  /** What fails has been taken back, unless `stands` says that it could not be: then that is for the lease's end. */
  #pausing<T>(held: XenLease, line: 'pause' | 'pause over', pause: (stands: Uint8Array) => T): T {
    const stands = new Uint8Array(1);
    held.note(line);
    try {
      return pause(stands);
    } catch (thrown) {
      try {
        if (stands[0] === 0) held.strike(line);
        else this.#sure(held, line);
      } catch {
        // The first error is the one to tell. What the journal says too much the lease's end finds undone.
      }
      throw thrown;
    }
  }

  #tellShadow(domid: number, inShadow: readonly number[]): void {
    if (inShadow.length === 0) return;
    this.#notice(
      `domain ${domid}: vCPU ${inShadow.join(', ')} stands right after sti or mov ss, which no image can tell: rolled back, ` +
        'it may take an interrupt one instruction too early',
    );
  }
}

/** The host contract's Builder for a domain that libxl has created and hands to its save helper to be filled. */
import { setImmediate } from 'node:timers/promises';
import { native, nativeCall } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import { steps } from '../../worker/steps.js';
import type { Builder, MemoryView } from '../contract.js';
import { domainType } from './domain_flags.js';
import { loadXen, type XenNative } from './native.js';
import type { XenBuilderHandle } from '../../handle.js';
import type { DomainState, MemoryGeometry } from '../../domain/state.js';
import type { DomainType } from '../../domain/type.js';
import { noFrame } from '../../pfn/page_words.js';

/** Event channels that libxl allocated in the new domain, and the domains at their other ends. */
export interface RingEnds {
  readonly storePort: number;
  readonly storeDomid: number;
  readonly consolePort: number;
  readonly consoleDomid: number;
}

/** Bits of what libxl is told that the image did not bring; it then sets its own default. */
const missing = { cpuid: 1, msr: 2 } as const;
/** Populated before timers and signals are looked at again. */
const pfnsPerCall = 65_536;
/**
 * A pfn space has holes: below 4 GiB in a translated domain, where the host has them in a PV domain that is shown its map, and
 * what a balloon may still fill. The bookkeeping of what lies beyond would cost dom0 more memory than the domain has.
 */
const mostPfnsOf = (maxPages: number): number => 4 * maxPages + 2 ** 22;

export class HelperBuilder implements Builder {
  readonly domid: number;
  /** What libxl made it. */
  readonly type: DomainType;
  readonly mostPfns: number;
  readonly #api: XenNative;
  readonly #ends: RingEnds;
  readonly #builder: XenBuilderHandle;
  #isPv = true;
  #rings = { store: 0, console: 0 };

  /** HOST_UNAVAILABLE, DOMAIN_NOT_FOUND. */
  static open(domid: number, ends: RingEnds): HelperBuilder {
    return new HelperBuilder(loadXen().api, domid, ends);
  }

  private constructor(api: XenNative, domid: number, ends: RingEnds) {
    this.#api = api;
    this.domid = domid;
    const made = native(() => api.domain(domid));
    this.type = domainType(made);
    this.mostPfns = mostPfnsOf(made.maxPages);
    this.#ends = ends;
    this.#builder = native(() => api.builderOpen(domid));
  }

  /** Frames of xenstore's and the console's ring, for the toolstack; known once `finish` is done. */
  get rings(): Readonly<{ store: number; console: number }> {
    return this.#rings;
  }

  /** Processor policy: before anything else. Returns what the toolstack is to be told is missing. */
  setPolicy(state: Pick<DomainState, 'cpuidPolicy' | 'msrPolicy'>): number {
    native(() => this.#api.builderSetPolicy(this.#builder, state.cpuidPolicy, state.msrPolicy));
    const lacksCpuid = state.cpuidPolicy.length === 0 ? missing.cpuid : 0;
    return lacksCpuid | (state.msrPolicy.length === 0 ? missing.msr : 0);
  }

  setGeometry({ guestWidth, nrPfns }: MemoryGeometry): Promise<void> {
    return this.#call((api) => {
      this.#isPv = guestWidth !== 0;
      if (this.#isPv) api.builderSetWidth(this.#builder, guestWidth);
      api.builderSetNrPfns(this.#builder, nrPfns);
    });
  }

  async populate(runs: readonly (readonly [first: number, count: number])[]): Promise<void> {
    for (const [first, count] of runs)
      for (let done = 0; done < count; done += pfnsPerCall) {
        const now = Math.min(pfnsPerCall, count - done);
        await this.#call((api) => api.builderPopulateRun(this.#builder, first + done, now));
        await setImmediate();
      }
  }

  /** As populate, of pfns in any order; those that have a frame keep it. */
  populatePfns(pfns: BigUint64Array): void {
    native(() => this.#api.builderPopulate(this.#builder, pfns));
  }

  /** Takes the frames of these pfns away again. */
  depopulate(pfns: BigUint64Array): void {
    native(() => this.#api.builderDepopulate(this.#builder, pfns));
  }

  openMemory(): Promise<MemoryView> {
    return this.#call((api) => {
      const handle = steps().adoptMemory(api.builderExport(this.#builder));
      return {
        handle,
        kind: 'build',
        close: () => {
          if (steps().releaseMemory(handle)) api.builderUnmap(this.#builder);
        },
      };
    });
  }

  frames(pfns: readonly number[]): Promise<(number | null)[]> {
    return this.#call((api) => {
      const frames = api.builderFrames(this.#builder, BigUint64Array.from(pfns, BigInt));
      return Array.from(frames, (frame) => (frame === noFrame ? null : Number(frame)));
    });
  }

  sharedInfoFrame(): Promise<number> {
    return this.#call((api) => api.builderSharedInfoFrame(this.#builder));
  }

  async connectRings(rings: {
    storePfn: number;
    consolePfn: number;
  }): Promise<{ storePort: number; consolePort: number }> {
    const [store, console] = await this.frames([rings.storePfn, rings.consolePfn]);
    if (typeof store !== 'number' || typeof console !== 'number')
      throw new DormouseError('IMAGE_DAMAGED', 'the ring of xenstore or of the console has no frame');
    this.#rings = { store, console };
    return { storePort: this.#ends.storePort, consolePort: this.#ends.consolePort };
  }

  pin(tables: readonly { readonly pfn: number; readonly level: 1 | 2 | 3 | 4 }[]): Promise<void> {
    return this.#call((api) => {
      const pfns = BigUint64Array.from(tables, ({ pfn }) => BigInt(pfn));
      api.builderPin(
        this.#builder,
        pfns,
        Uint8Array.from(tables, ({ level }) => level),
      );
    });
  }

  setState(state: DomainState): Promise<void> {
    return this.#call((api) => {
      if (this.#isPv) {
        api.builderSetPvState(this.#builder, state);
        return;
      }
      const { storePort, consolePort } = this.#ends;
      const [store, console] = api.builderSetHvmState(this.#builder, state, storePort, consolePort);
      this.#rings = { store, console };
    });
  }

  finish(): Promise<void> {
    return this.#call((api) => {
      const { store, console } = this.#rings;
      const { storeDomid, consoleDomid } = this.#ends;
      api.builderSeedGrants(this.#builder, store, storeDomid, console, consoleDomid);
    });
  }

  /** Unmaps everything. Idempotent. */
  close(): void {
    this.#api.builderClose(this.#builder);
  }

  #call<T>(body: (api: XenNative) => T): Promise<T> {
    return nativeCall(() => body(this.#api));
  }
}

/** Fills a domain with pages as they come, some of them more than once, and completes it. */
import type { Buffer } from 'node:buffer';
import { findP2mRoot } from '../domain/p2m_root.js';
import { sharedInfoBytes } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { Builder, MemoryView } from '../host/contract.js';
import type { PageTableEntry } from '../image/reader.js';
import { native, nativePromise } from '../addon.js';
import { hasBody, isPinned, pageType, tableLevel } from '../pfn/page_type.js';
import { finishPvState, topTables } from '../restore/pv_guest.js';
import { steps } from '../worker/steps.js';
import type { DomainState, MemoryGeometry } from '../domain/state.js';
import type { MemoryHandle } from '../handle.js';
import { noFrame } from '../pfn/page_words.js';
import { batchPfns } from '../xenstream/stream_format.js';
import { MAX_CHUNK_PAGES } from '../image/format.js';
import type { Kept } from '../xenstream/frames/decoding_lanes.js';

const tablesPerStep = 1024;
const pfnsPerStep = 65_536;
/** Most pages that come at once: of a chunk of ours, or of a record of libxc's. */
const pfnsPerCall = Math.max(MAX_CHUNK_PAGES, batchPfns);

/** A builder that gives and takes frames one by one. */
export interface PageBuilder extends Builder {
  /** More pfns than a domain of its memory can have: what a stream says beyond them is not believed. */
  readonly mostPfns: number;
  /** Pfns in any order; those that have a frame keep it. */
  populatePfns(pfns: BigUint64Array): Promise<void> | void;
  /** Takes the frames of these pfns away again; all have one. */
  depopulate(pfns: BigUint64Array): Promise<void> | void;
}

type Size = Pick<MemoryGeometry, 'guestWidth' | 'nrPfns'>;

export class DomainFiller {
  #types = new Uint8Array(0);
  /** Of each pfn whether a page of it is being placed. */
  #placing = new Uint8Array(0);
  readonly #fresh = new BigUint64Array(pfnsPerCall);
  /** None rejects. */
  readonly #work = new Set<Promise<unknown>>();
  #guestWidth: Size['guestWidth'] = 0;
  #placed = 0;

  #memory: MemoryView | undefined;

  constructor(private readonly builder: PageBuilder) {}

  /** Pages that were placed so far, those that came again too. */
  get placed(): number {
    return this.#placed;
  }

  /** `nrPfns` is what the domain has at least; it may turn out to be larger. IMAGE_INCOMPATIBLE. */
  async begin({ guestWidth, nrPfns }: Size): Promise<void> {
    if (guestWidth === 4) throw new DormouseError('IMAGE_INCOMPATIBLE', '32-bit PV guests are not supported');
    this.#guestWidth = guestWidth;
    await this.#resize(nrPfns);
    this.#memory = await this.builder.openMemory();
  }

  get #handle(): MemoryHandle {
    if (!this.#memory) throw new DormouseError('INTERNAL', 'pages before the size of the domain is known');
    return this.#memory.handle;
  }

  /** Unmaps, once nothing is being placed any more. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#work);
    this.#memory?.close();
  }

  async #resize(nrPfns: number): Promise<void> {
    const { mostPfns } = this.builder;
    if (nrPfns > mostPfns)
      throw new DormouseError(
        'STREAM_INVALID',
        `a guest of ${nrPfns} pfns, where its memory allows for no more than ${mostPfns}`,
      );
    await this.builder.setGeometry({
      ...{ nrPfns, guestWidth: this.#guestWidth },
      ...{ p2mFrames: [], p2mGeneration: 0 },
    });
    const types = new Uint8Array(nrPfns).fill(pageType.xtab);
    types.set(this.#types);
    this.#types = types;
    this.#placing = new Uint8Array(nrPfns);
  }

  /**
   * Pages as a chunk has them (native/image/chunk.h), tables in canonical form; called for one chunk after the other. They have frames
   * when it returns, and are `done` once they are placed: those of the next call may be placed meanwhile.
   */
  async place(descs: BigUint64Array, bodies: Buffer): Promise<Kept> {
    if (descs.length === 0) return { done: Promise.resolve() };
    await this.#admit(descs);
    const done = nativePromise(() => steps().placePages(this.#handle, descs, bodies, this.#placing));
    this.#placed += descs.length;
    const over: Promise<unknown> = Promise.allSettled([done]).then(() => this.#work.delete(over));
    this.#work.add(over);
    return { done };
  }

  async #admit(descs: BigUint64Array): Promise<void> {
    const admitted = () => native(() => steps().admitPages(descs, this.#types, this.#placing, this.#fresh));
    let { highestPfn, populate, overlaps } = admitted();
    if (highestPfn >= this.#types.length || overlaps) {
      await Promise.all(this.#work);
      const doubled = Math.min(2 * this.#types.length, this.builder.mostPfns);
      if (highestPfn >= this.#types.length) await this.#resize(Math.max(highestPfn + 1, doubled));
      ({ highestPfn, populate, overlaps } = admitted());
    }
    if (overlaps || highestPfn >= this.#types.length)
      throw new DormouseError('INTERNAL', 'pages are being placed that nobody places');
    if (populate > 0) await this.builder.populatePfns(this.#fresh.slice(0, populate));
  }

  #tables(): PageTableEntry[] {
    const tables: PageTableEntry[] = [];
    this.#types.forEach((type, pfn) => {
      const level = tableLevel(type);
      if (level !== 0) tables.push({ pfn, level, pinned: isPinned(type) });
    });
    return tables;
  }

  #localise(tables: readonly PageTableEntry[]): void {
    for (let at = 0; at < tables.length; at += tablesPerStep) {
      const some = tables.slice(at, at + tablesPerStep);
      const pfns = BigUint64Array.from(some, ({ pfn }) => BigInt(pfn));
      const levels = Uint8Array.from(some, ({ level }) => level);
      native(() => steps().localiseTables(this.#handle, pfns, levels));
    }
  }

  async #finishPv(geometry: MemoryGeometry, state: DomainState): Promise<void> {
    const { nrPfns, p2mFrames } = geometry;
    if (state.sharedInfo.length !== sharedInfoBytes)
      throw new DormouseError('STREAM_INVALID', 'the stream has no shared info');
    const handle = this.#handle;
    const tables = this.#tables();
    // The tables lie in memory as they came, in canonical form, until they are localised.
    const root = findP2mRoot({
      sharedInfo: state.sharedInfo,
      nrPfns,
      p2mFrames,
      l4Pfns: topTables(tables),
      readPage: (pfn) => native(() => steps().readPages(handle, BigUint64Array.of(BigInt(pfn)))),
    });
    this.#localise(tables);
    const source = {
      ...{ nrPfns, geometry, state },
      pageType: (pfn: number) => this.#types[pfn] ?? pageType.xtab,
      tables: () => tables,
      p2mRoot: () => root,
    };
    await finishPvState(this.builder, source, handle);
  }

  /** A page that was sent and then said to have no frame was given back by the guest while it was copied. */
  async #giveBack(): Promise<void> {
    for (let first = 0; first < this.#types.length; first += pfnsPerStep) {
      const types = this.#types.subarray(first, first + pfnsPerStep);
      const gone = new BigUint64Array(types.length);
      let count = 0;
      types.forEach((type, i) => {
        if (!hasBody(type) && type !== pageType.xalloc) gone[count++] = BigInt(first + i);
      });
      const listed = gone.slice(0, count);
      const frames = steps().pfnsToFrames(this.#handle, listed.slice());
      const toFree = listed.filter((_, i) => frames[i] !== noFrame);
      if (toFree.length > 0) await this.builder.depopulate(toFree);
    }
  }

  /** STREAM_INVALID, IMAGE_DAMAGED, PAGE_TABLE_INVALID. */
  async finish(geometry: MemoryGeometry, state: DomainState): Promise<void> {
    if (geometry.nrPfns > this.#types.length) await this.#resize(geometry.nrPfns);
    await this.#giveBack();
    if (this.#guestWidth !== 0) await this.#finishPv(geometry, state);
    else await this.builder.setState(state);
    await this.builder.finish();
  }
}

/** Fills a domain with pages as they come, some of them more than once, and completes it. */
import type { Buffer } from 'node:buffer';
import { findP2mRoot } from '../domain/p2m_root.js';
import { sharedInfoBytes } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { Builder, MemoryView } from '../host/contract.js';
import type { PageTableEntry } from '../image/reader.js';
import { native } from '../addon.js';
import { hasBody, isPinned, pageType, tableLevel } from '../pfn/page_type.js';
import { finishPvState, topTables } from '../restore/pv_guest.js';
import { steps } from '../worker/steps.js';
import type { DomainState, MemoryGeometry } from '../domain/state.js';
import type { MemoryHandle } from '../handle.js';
import { joined, pfnHalf, typeOfHalf, noFrame } from '../pfn/page_words.js';

const tablesPerStep = 1024;
const pfnsPerStep = 65_536;

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

  /** Unmaps. Idempotent. */
  close(): void {
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
  }

  /** Pages as a chunk has them (native/image/chunk.h); tables in canonical form. */
  async place(descs: BigUint64Array, bodies: Buffer): Promise<void> {
    const words = new Uint32Array(descs.buffer, descs.byteOffset, 2 * descs.length);
    const toPopulate = new BigUint64Array(descs.length);
    let populated = 0;
    for (let i = 0; i < descs.length; ++i) {
      const high = words[2 * i + 1] ?? 0;
      const pfn = joined(words[2 * i] ?? 0, pfnHalf(high));
      const type = typeOfHalf(high);
      const { mostPfns } = this.builder;
      if (pfn >= this.#types.length)
        await this.#resize(Math.max(pfn + 1, Math.min(2 * this.#types.length, mostPfns)));
      this.#types[pfn] = type;
      if (hasBody(type) || type === pageType.xalloc) toPopulate[populated++] = BigInt(pfn);
    }
    await this.builder.populatePfns(toPopulate.slice(0, populated));
    native(() => steps().placePages(this.#handle, descs, bodies));
    this.#placed += descs.length;
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

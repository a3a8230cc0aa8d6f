/** Fills a domain from a libxc stream, v2 or v3, as it arrives. */
import type { Buffer } from 'node:buffer';
import { findP2mRoot } from '../domain/p2m_root.js';
import { sharedInfoBytes } from '../domain/vcpu_context.js';
import { DormouseError } from '../errors.js';
import type { MemoryView } from '../host/contract.js';
import type { HelperBuilder } from '../host/xen/builder.js';
import type { ByteReader } from '../image/convert/stream_parser.js';
import {
  parseLibxcStream,
  type PageSlice,
  type StreamRecord,
  type StreamVisitor,
} from '../image/convert/stream_parser.js';
import { Survey } from '../image/convert/survey.js';
import { MAX_PFNS } from '../image/format.js';
import type { PageTableEntry } from '../image/reader.js';
import { hasBody, isPinned, pageType, tableLevel } from '../pfn/page_type.js';
import { finishPvState, topTables } from '../restore/pv_guest.js';
import { steps } from '../worker/steps.js';
import { type LibxlChannel, logLevel } from './channel.js';

/** Most bytes of records beside the pages. */
const maxStateBytes = 32 << 20;
const tablesPerStep = 1024;
const noFrame = 0xffff_ffff_ffff_ffffn;

class StreamRestorer implements StreamVisitor {
  readonly #survey = new Survey();
  #types = new Uint8Array(0);
  #begun = false;
  #placed = 0;

  constructor(
    private readonly builder: HelperBuilder,
    private readonly memory: MemoryView,
    private readonly channel: LibxlChannel,
  ) {}

  libxcHeader: NonNullable<StreamVisitor['libxcHeader']> = (header) => {
    this.#survey.libxcHeader(header);
    const { type, xenMajor, xenMinor } = header;
    const found = `Found ${type === 'pv' ? 'x86 PV' : 'x86 HVM'} domain from Xen ${xenMajor}.${xenMinor}`;
    this.channel.log(logLevel.info, found);
    this.channel.log(logLevel.info, 'Restoring domain');
  };

  record(record: StreamRecord): void {
    this.#survey.record(record);
  }

  /** Processor policy and geometry: all that comes before the first page. */
  async #begin(): Promise<void> {
    if (this.#begun) return;
    this.#begun = true;
    await this.channel.staticDataDone(this.builder.setPolicy(this.#survey.state));
    if (this.#survey.guestWidth === 4)
      throw new DormouseError('IMAGE_INCOMPATIBLE', '32-bit PV guests are not supported');
    await this.#resize(this.#survey.nrPfns);
  }

  async #resize(nrPfns: number): Promise<void> {
    const { guestWidth, p2mFrames } = this.#survey;
    await this.builder.setGeometry({ nrPfns, guestWidth, p2mFrames, p2mGeneration: 0 });
    const types = new Uint8Array(nrPfns).fill(pageType.xtab);
    types.set(this.#types);
    this.#types = types;
  }

  async pages(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> {
    if (this.#survey.verifySeen) return;
    await this.#begin();
    this.#survey.pages(slice);
    const known = this.#types.length;
    if (this.#survey.nrPfns > known) await this.#resize(Math.max(this.#survey.nrPfns, 2 * known));
    const toPopulate: bigint[] = [];
    const toWrite: bigint[] = [];
    for (let i = 0; i < slice.count; ++i) {
      const [pfn, type] = [slice.pfns[i] ?? 0, slice.types[i] ?? 0];
      this.#types[pfn] = type;
      if (hasBody(type)) toWrite.push(BigInt(pfn));
      if (hasBody(type) || type === pageType.xalloc) toPopulate.push(BigInt(pfn));
    }
    this.builder.populatePfns(BigUint64Array.from(toPopulate));
    if (toWrite.length > 0)
      steps().writePages(this.memory.handle, BigUint64Array.from(toWrite), await readBodies());
    this.#placed += slice.count;
    this.channel.progress('Frames', this.#placed, Math.max(this.#placed, this.#survey.nrPfns));
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
      steps().localiseTables(this.memory.handle, pfns, levels);
    }
  }

  async #finishPv(): Promise<void> {
    const { nrPfns, guestWidth, p2mFrames, state } = this.#survey;
    if (state.sharedInfo.length !== sharedInfoBytes)
      throw new DormouseError('STREAM_INVALID', 'the stream has no shared info');
    const { handle } = this.memory;
    const tables = this.#tables();
    // The tables lie in memory as they came, in canonical form, until they are localised.
    const root = findP2mRoot({
      sharedInfo: state.sharedInfo,
      nrPfns,
      p2mFrames,
      l4Pfns: topTables(tables),
      readPage: (pfn) => steps().readPages(handle, BigUint64Array.of(BigInt(pfn))),
    });
    this.#localise(tables);
    const source = {
      nrPfns,
      geometry: { nrPfns, guestWidth, p2mFrames, p2mGeneration: 0 },
      state,
      pageType: (pfn: number) => this.#types[pfn] ?? pageType.xtab,
      tables: () => tables,
      p2mRoot: () => root,
    };
    await finishPvState(this.builder, source, handle);
  }

  /** A page that was sent and then said to have no frame was given back by the guest while it was copied. */
  #giveBack(): void {
    const { handle } = this.memory;
    const gone = new BigUint64Array(this.#types.length);
    let count = 0;
    this.#types.forEach((type, pfn) => {
      if (!hasBody(type) && type !== pageType.xalloc) gone[count++] = BigInt(pfn);
    });
    const listed = gone.subarray(0, count);
    const frames = steps().pfnsToFrames(handle, listed.slice());
    const toFree = listed.filter((_, i) => frames[i] !== noFrame);
    if (toFree.length > 0) this.builder.depopulate(toFree);
  }

  async finish(): Promise<void> {
    await this.#begin();
    this.#giveBack();
    if (this.#survey.guestWidth !== 0) await this.#finishPv();
    else await this.builder.setState(this.#survey.state);
    await this.builder.finish();
  }
}

/** STREAM_INVALID, STREAM_UNSUPPORTED, IMAGE_DAMAGED, NO_MEMORY, PAGE_TABLE_INVALID, CANCELLED. */
export async function restoreStream(
  builder: HelperBuilder,
  source: ByteReader,
  channel: LibxlChannel,
  signal: AbortSignal,
): Promise<void> {
  const memory = await builder.openMemory();
  try {
    const restorer = new StreamRestorer(builder, memory, channel);
    await parseLibxcStream(source, restorer, { maxPfns: MAX_PFNS, maxStateBytes }, signal);
    await restorer.finish();
  } finally {
    memory.close();
  }
}

/** First pass over an `xl save` file: checks all of it and gathers everything but the pages' contents. */
import { Buffer } from 'node:buffer';
import type { Manifest } from '../image/manifest.js';
import { LayoutRecorder, PfnSet } from './page_layout.js';
import { libxcRecord as rec } from './stream_format.js';
import type { StreamItem, StreamManifest } from './stream_manifest.js';
import { frameAt, type LibxcHeader } from './stream_order.js';
import type { PageSlice, StreamRecord, StreamVisitor, XlHeader } from './stream_parser.js';
import { streamInvalid } from './frames/byte_reader.js';
import { mostPfnsFor } from '../pfn/proportion.js';

type State = Manifest['state'];
type Vcpu = State['vcpus'][number];

/** Libxc records whose body manifest.state holds, and where. */
export const stateFields: ReadonlyMap<number, Exclude<keyof State, 'vcpus' | 'links'>> = new Map([
  [rec.sharedInfo, 'sharedInfo'],
  [rec.tscInfo, 'tscInfo'],
  [rec.cpuidPolicy, 'cpuidPolicy'],
  [rec.msrPolicy, 'msrPolicy'],
  [rec.hvmContext, 'hvmContext'],
  [rec.hvmParams, 'hvmParams'],
] as const);
export const vcpuFields: ReadonlyMap<number, Exclude<keyof Vcpu, 'id'>> = new Map([
  [rec.vcpuBasic, 'basic'],
  [rec.vcpuExtended, 'extended'],
  [rec.vcpuXsave, 'xsave'],
  [rec.vcpuMsrs, 'msrs'],
] as const);

const none = (): Buffer => Buffer.alloc(0);

export class Survey implements StreamVisitor {
  xl: XlHeader | null = null;
  header: LibxcHeader | null = null;
  readonly state: State = {
    vcpus: [],
    sharedInfo: none(),
    tscInfo: none(),
    cpuidPolicy: none(),
    msrPolicy: none(),
    hvmContext: none(),
    hvmParams: none(),
  };
  guestWidth: 0 | 4 | 8 = 0;
  p2mFrames: number[] = [];
  nrPfns = 0;
  /** The pfns the stream mentions, before VERIFY. */
  readonly mentioned = new PfnSet();
  /** Pages listed, and how many of those had been listed before. */
  listedPages = 0;
  repeatedPages = 0;
  verifySeen = false;
  readonly #items: StreamItem[] = [];
  readonly #layout = new LayoutRecorder();
  #libxl = { version: 0, options: 0 };

  /** `onPages` is called after every slice of pages. */
  constructor(private readonly onPages: () => void = () => undefined) {}

  xlHeader(header: XlHeader): void {
    this.xl = header;
  }
  libxlHeader(header: { version: number; options: number }): void {
    this.#libxl = header;
  }
  libxcHeader(header: LibxcHeader): void {
    this.header = header;
  }

  record({ layer, type, body }: StreamRecord): void {
    const field = layer === 'libxc' ? stateFields.get(type) : undefined;
    const ofVcpu = layer === 'libxc' ? vcpuFields.get(type) : undefined;
    if (field !== undefined) {
      this.state[field] = body;
      this.#items.push({ kind: 'state', type });
    } else if (ofVcpu !== undefined) this.#vcpu(ofVcpu, type, body);
    else if (layer === 'libxc' && type === rec.pvInfo) {
      this.guestWidth = body.readUInt8(0) === 4 ? 4 : 8;
      this.#items.push({ kind: 'state', type });
    } else if (layer === 'libxc' && type === rec.p2mFrames) {
      this.nrPfns = body.readUInt32LE(4) + 1;
      for (let i = 0; i < body.length / 8 - 1; ++i) this.p2mFrames.push(frameAt(body, i));
      this.#items.push({ kind: 'state', type });
    } else if (layer === 'libxc' && type === rec.verify) this.verifySeen = true;
    else this.#items.push({ kind: 'record', layer, type, body });
  }

  #vcpu(field: Exclude<keyof Vcpu, 'id'>, type: number, body: Buffer): void {
    const id = body.readUInt32LE(0);
    let vcpu = this.state.vcpus.find((one) => one.id === id);
    if (vcpu === undefined) {
      vcpu = { id, basic: none(), extended: none(), xsave: none(), msrs: none() };
      this.state.vcpus.push(vcpu);
    }
    vcpu[field] = body.subarray(8);
    this.#items.push({ kind: 'vcpu', type, id });
  }

  pages(slice: PageSlice): void {
    if (this.verifySeen) return;
    if (slice.first === 0) this.#pageRecord(slice.recordCount);
    for (let i = 0; i < slice.count; ++i) {
      const pfn = slice.pfns[i] ?? 0;
      if (!this.mentioned.add(pfn)) ++this.repeatedPages;
      this.#layout.page(pfn);
      if (this.header?.type === 'hvm' && pfn >= this.nrPfns) this.nrPfns = pfn + 1;
    }
    this.listed(slice.count);
  }

  protected listed(count: number): void {
    this.listedPages += count;
    this.onPages();
  }

  /**
   * A stream lists all of a guest's pages, those without a frame too. STREAM_INVALID for one that claims a guest out
   * of all proportion to its list, as every page costs work and memory.
   */
  checkProportion(endOffset: number): void {
    const listed = this.listedPages - this.repeatedPages;
    if (this.nrPfns > mostPfnsFor(listed))
      throw streamInvalid(`the stream lists ${listed} pages of a guest of ${this.nrPfns}`, endOffset);
  }

  #pageRecord(count: number): void {
    this.#layout.record(count);
    const last = this.#items.at(-1);
    if (last?.kind === 'pages') ++last.records;
    else this.#items.push({ kind: 'pages', records: 1 });
  }

  /** True if the page lists took too many runs to be remembered. */
  get layoutLost(): boolean {
    return this.#layout.lost;
  }

  /** What the image keeps of the stream. */
  streamManifest(): StreamManifest {
    const { xl, header } = this.parsed();
    const { mandatoryFlags, optionalFlags, optionalData } = xl;
    return {
      schema: 1,
      xl: { mandatoryFlags, optionalFlags, optionalData },
      libxl: this.#libxl,
      libxc: { ...header },
      items: this.#items,
      layout: this.repeatedPages > 0 ? null : this.#layout.finish(),
    };
  }

  /** The headers, which a parse that ended well has seen. */
  parsed(): { xl: XlHeader; header: LibxcHeader } {
    if (this.xl === null || this.header === null) throw new Error('the stream was not parsed to its end');
    return { xl: this.xl, header: this.header };
  }
}

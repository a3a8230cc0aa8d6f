/** The order and number of libxc records, and the form of each body: what a restore relies on. */
import type { Buffer } from 'node:buffer';
import {
  libxcRecord as rec,
  maxVcpus,
  optionalRecord,
  recordName,
  vcpuContextBytes,
} from './stream_format.js';
import { streamInvalid, streamUnsupported } from './frames/byte_reader.js';
import { pageBytes, joined } from '../pfn/page_words.js';

export interface LibxcHeader {
  readonly version: 2 | 3;
  readonly options: number;
  readonly type: 'pv' | 'hvm';
  readonly xenMajor: number;
  readonly xenMinor: number;
}

const pvOnly: ReadonlySet<number> = new Set([
  rec.pvInfo,
  rec.p2mFrames,
  rec.vcpuBasic,
  rec.vcpuExtended,
  rec.vcpuXsave,
  rec.vcpuMsrs,
  rec.sharedInfo,
]);
const hvmOnly: ReadonlySet<number> = new Set([rec.hvmContext, rec.hvmParams]);
const vcpuRecords: ReadonlySet<number> = new Set([
  rec.vcpuBasic,
  rec.vcpuExtended,
  rec.vcpuXsave,
  rec.vcpuMsrs,
]);
/** At most one of each in a stream. */
const single: ReadonlySet<number> = new Set([
  rec.pvInfo,
  rec.p2mFrames,
  rec.sharedInfo,
  rec.tscInfo,
  rec.hvmContext,
  rec.hvmParams,
  rec.toolstack,
  rec.staticDataEnd,
  rec.cpuidPolicy,
  rec.msrPolicy,
  rec.verify,
]);
const empty: ReadonlySet<number> = new Set([rec.end, rec.verify, rec.checkpoint, rec.staticDataEnd]);

/** Fed every libxc record in turn; throws STREAM_INVALID or STREAM_UNSUPPORTED at the first that is out of place. */
export class StreamOrder {
  readonly #seen = new Set<number>();
  readonly #vcpuSeen = new Set<string>();
  #pagesSeen = false;
  #width: 4 | 8 | 0 = 0;
  #nrPfns = 0;

  constructor(private readonly header: LibxcHeader) {}

  /** PV: number of pfns, known once P2M_FRAMES was seen; else 0. */
  get nrPfns(): number {
    return this.#nrPfns;
  }
  get guestWidth(): 4 | 8 | 0 {
    return this.#width;
  }

  /** Judges a record by its type alone, before its body is read. */
  admit(type: number, length: number, offset: number): void {
    const name = recordName('libxc', type);
    if (type === rec.checkpoint || type === rec.checkpointDirtyPfnList)
      throw streamUnsupported(
        `${name}: a checkpointed (Remus or COLO) stream has no single end state`,
        offset,
      );
    if (type > rec.msrPolicy) {
      if (type < optionalRecord) throw streamUnsupported(`${name} is mandatory and not known`, offset);
      return;
    }
    if (empty.has(type) && length !== 0) throw streamInvalid(`${name} has a body of ${length} bytes`, offset);
    if ((this.header.type === 'pv' ? hvmOnly : pvOnly).has(type))
      throw streamInvalid(`${name} in a ${this.header.type.toUpperCase()} stream`, offset);
    if (single.has(type) && this.#seen.has(type)) throw streamInvalid(`a second ${name}`, offset);
    this.#place(type, name, offset);
    this.#seen.add(type);
  }

  #place(type: number, name: string, offset: number): void {
    const { version } = this.header;
    const staticDone = this.#seen.has(rec.staticDataEnd) || this.#pagesSeen || this.#seen.has(rec.p2mFrames);
    const need = (holds: boolean, rule: string) => {
      if (!holds) throw streamInvalid(`${name} ${rule}`, offset);
    };
    if (type === rec.staticDataEnd) {
      need(version === 3, 'in a version 2 stream');
      need(!staticDone, "comes after the guest's memory");
      if (this.header.type === 'pv') need(this.#seen.has(rec.pvInfo), 'comes before X86_PV_INFO');
    } else if (type === rec.pvInfo || type === rec.cpuidPolicy || type === rec.msrPolicy) {
      need(!staticDone, 'comes after the end of the static data');
    } else if (type === rec.p2mFrames) {
      need(this.#seen.has(rec.pvInfo), 'comes before X86_PV_INFO');
      need(version === 2 || this.#seen.has(rec.staticDataEnd), 'comes before STATIC_DATA_END');
    } else if (type === rec.pageData) {
      if (this.header.type === 'pv') need(this.#seen.has(rec.p2mFrames), 'comes before X86_PV_P2M_FRAMES');
      else need(version === 2 || this.#seen.has(rec.staticDataEnd), 'comes before STATIC_DATA_END');
      this.#pagesSeen = true;
    } else if (vcpuRecords.has(type) || type === rec.verify) {
      need(this.#pagesSeen, 'comes before the first PAGE_DATA');
    } else if (type === rec.end) this.#atEnd(offset);
  }

  #atEnd(offset: number): void {
    const wanted =
      this.header.type === 'pv'
        ? [rec.p2mFrames, rec.pageData, rec.sharedInfo, rec.vcpuBasic]
        : [rec.pageData, rec.hvmContext, rec.hvmParams];
    for (const type of wanted)
      if (!this.#seen.has(type))
        throw streamInvalid(`the stream ends without ${recordName('libxc', type)}`, offset);
  }

  /** Judges the body of a record that `admit` let pass (not PAGE_DATA). `offset` is that of its header. */
  checkBody(type: number, body: Buffer, offset: number): void {
    const need = (holds: boolean, rule: string) => {
      if (!holds) throw streamInvalid(`${recordName('libxc', type)}: ${rule}`, offset);
    };
    if (vcpuRecords.has(type)) this.#checkVcpu(type, body, need);
    else if (type === rec.pvInfo) {
      need(body.length === 8, 'length is not 8');
      const [width, levels] = [body.readUInt8(0), body.readUInt8(1)];
      need(
        (width === 4 && levels === 3) || (width === 8 && levels === 4),
        `width ${width} with ${levels} levels`,
      );
      need(body.readUIntLE(2, 6) === 0, 'reserved bytes are not zero');
      this.#width = width === 4 ? 4 : 8;
    } else if (type === rec.p2mFrames) this.#checkP2mFrames(body, offset, need);
    else if (type === rec.sharedInfo) need(body.length === pageBytes, 'length is not 4096');
    else if (type === rec.tscInfo) {
      need(body.length === 24, 'length is not 24');
      need(body.readUInt32LE(20) === 0, 'reserved bytes are not zero');
    } else if (type === rec.cpuidPolicy) need(body.length % 24 === 0, 'length is not a multiple of 24');
    else if (type === rec.msrPolicy) need(body.length % 16 === 0, 'length is not a multiple of 16');
    else if (type === rec.hvmContext) need(body.length > 0, 'is empty');
    else if (type === rec.hvmParams) {
      need(body.length >= 8, 'is too short');
      need(body.length === 8 + 16 * body.readUInt32LE(0), 'length does not fit its count');
      need(body.readUInt32LE(4) === 0, 'reserved bytes are not zero');
    }
  }

  #checkP2mFrames(body: Buffer, offset: number, need: (holds: boolean, rule: string) => void): void {
    need(body.length >= 8, 'is too short');
    const [start, end] = [body.readUInt32LE(0), body.readUInt32LE(4)];
    if (start !== 0)
      throw streamUnsupported(`${recordName('libxc', rec.p2mFrames)}: begins at pfn ${start}, not 0`, offset);
    const perFrame = pageBytes / this.#width;
    const frames = Math.floor(end / perFrame) + 1;
    need(body.length === 8 + 8 * frames, `length does not fit pfns 0 to ${end}`);
    for (let i = 0; i < frames; ++i) need(frameAt(body, i) <= end, `frame ${i} is not a pfn of the guest`);
    this.#nrPfns = end + 1;
  }

  #checkVcpu(type: number, body: Buffer, need: (holds: boolean, rule: string) => void): void {
    need(body.length >= 8, 'is too short');
    const id = body.readUInt32LE(0);
    const blob = body.length - 8;
    need(id < maxVcpus, `vCPU ${id} is beyond the limit of ${maxVcpus}`);
    need(body.readUInt32LE(4) === 0, 'reserved bytes are not zero');
    need(!this.#vcpuSeen.has(`${type} ${id}`), `is there twice for vCPU ${id}`);
    this.#vcpuSeen.add(`${type} ${id}`);
    if (type === rec.vcpuBasic) {
      const wanted = vcpuContextBytes[this.#width === 4 ? 4 : 8];
      need(blob === wanted, `${blob} bytes of state, not ${wanted}`);
      return;
    }
    need(this.#vcpuSeen.has(`${rec.vcpuBasic} ${id}`), `vCPU ${id} has no basic state before it`);
    if (type === rec.vcpuExtended) need(blob <= 128, `${blob} bytes of state, more than 128`);
    if (type === rec.vcpuXsave) need(blob === 0 || blob >= 16, `${blob} bytes of state, less than 16`);
    if (type === rec.vcpuMsrs) need(blob % 16 === 0, 'length is not a multiple of 16');
  }
}

/** Entry `i` of a P2M_FRAMES body; larger than any pfn if it is not a whole number below 2^53. */
export function frameAt(body: Buffer, i: number): number {
  const high = body.readUInt32LE(12 + 8 * i);
  return high >= 1 << 20 ? Infinity : joined(body.readUInt32LE(8 + 8 * i), high);
}

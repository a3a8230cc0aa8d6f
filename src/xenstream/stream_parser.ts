/** Reads an `xl save` file from front to back and hands each part, checked, to a visitor. */
import { Buffer } from 'node:buffer';
import * as format from './stream_format.js';
import { StreamOrder, type LibxcHeader } from './stream_order.js';
import { type ByteReader, streamInvalid, streamUnsupported } from './frames/byte_reader.js';
import { STREAM_MAGIC } from './frames/layout.js';
import { readFrames, type FrameVisitor } from './frames/reader.js';
import { withoutTrailingNuls } from '../domain/trailing_nuls.js';
import { pageBytes, joined, pfnHalf, typeOfHalf } from '../pfn/page_words.js';
import { hasBody, tableLevel } from '../pfn/page_type.js';

const { libxcRecord, libxlRecord } = format;

export interface XlHeader {
  readonly mandatoryFlags: number;
  readonly optionalFlags: number;
  /** Everything between header and stream: u32 length, configuration, and whatever follows it. */
  readonly optionalData: Buffer;
  /** The configuration without its trailing NULs. */
  readonly config: string;
}

export interface StreamRecord {
  readonly layer: format.StreamLayer;
  readonly type: number;
  /** A copy of its own. */
  readonly body: Buffer;
  readonly offset: number;
}

/** At most 1024 neighbouring pfns of one PAGE_DATA record. Reused: take what is needed before returning. */
export interface PageSlice {
  /** Entries of the whole record, and which of them is the first here. */
  readonly recordCount: number;
  readonly first: number;
  readonly count: number;
  readonly pfns: Float64Array;
  readonly types: Uint8Array;
  /** How many of the slice's pages have a body. */
  readonly bodies: number;
  readonly offset: number;
}

export interface StreamVisitor {
  xlHeader?(header: XlHeader): void;
  libxlHeader?(header: { version: number; options: number }): void;
  libxcHeader?(header: LibxcHeader): void;
  /** Any record but PAGE_DATA, END included. */
  record?(record: StreamRecord): void;
  /** `readBodies` gives the slice's bodies one after the other, a view until the next read; not called, they are skipped. */
  pages?(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> | void;
  /** Takes a stream of dormouse's own where a libxc stream would be; absent, it is refused. */
  readonly frames?: FrameVisitor;
}

export interface ParseLimits {
  /** Pfns at or above this are refused. */
  readonly maxPfns: number;
  /** Most bytes of records other than pages that are kept in all, each counted as 64 more than its body. */
  readonly maxStateBytes: number;
}

/** Parses the whole file. STREAM_INVALID or STREAM_UNSUPPORTED with the offset; CANCELLED by the signal. */
export async function parseStream(
  source: ByteReader,
  visitor: StreamVisitor,
  limits: ParseLimits,
  signal?: AbortSignal,
): Promise<void> {
  await new Parser(source, visitor, limits, signal).run();
}

/** Parses a libxc stream alone, from its header to its END; nothing beyond is read. Errors as parseStream's. */
export async function parseLibxcStream(
  source: ByteReader,
  visitor: StreamVisitor,
  limits: ParseLimits,
  signal?: AbortSignal,
): Promise<void> {
  await new Parser(source, visitor, limits, signal).libxcStream();
}

const magicBytes = 8;

interface RecordHeader {
  readonly type: number;
  readonly length: number;
  readonly offset: number;
}

class Parser {
  #stateBytes = 0;
  readonly #pfns = new Float64Array(format.batchPfns);
  readonly #types = new Uint8Array(format.batchPfns);

  constructor(
    private readonly source: ByteReader,
    private readonly visitor: StreamVisitor,
    private readonly limits: ParseLimits,
    private readonly signal: AbortSignal | undefined,
  ) {}

  async run(): Promise<void> {
    await this.#xlHeader();
    await this.#libxlHeader();
    let context: Pick<LibxcHeader, 'type'> | null = null;
    for (;;) {
      const header = await this.#recordHeader('libxl');
      this.#admitLibxl(header, context);
      await this.#carry('libxl', header);
      if (header.type === libxlRecord.end) break;
      if (header.type === libxlRecord.libxcContext) context = await this.#context();
    }
    if (!(await this.source.atEnd()))
      throw streamInvalid('bytes follow the end of the stream', this.source.offset);
  }

  async #xlHeader(): Promise<void> {
    const { xlMandatoryFlags: flags, xlMagic } = format;
    const head = Buffer.from(await this.source.read(format.xlHeaderBytes, 'the xl header'));
    if (!head.subarray(0, xlMagic.length).equals(xlMagic)) throw streamInvalid('not an xl save file', 0);
    const [order, mandatoryFlags, optionalFlags, length] = [0, 4, 8, 12].map((at) =>
      head.readUInt32LE(xlMagic.length + at),
    ) as [number, number, number, number];
    if (order === 0x04030201) throw streamUnsupported('a big-endian file', xlMagic.length);
    if (order !== format.xlByteOrder) throw streamInvalid('wrong byte order mark', xlMagic.length);
    if ((mandatoryFlags & flags.streamV2) === 0)
      throw streamUnsupported('a legacy file of Xen 4.5 or earlier', xlMagic.length + 4);
    if (mandatoryFlags !== (flags.configJson | flags.streamV2))
      throw streamUnsupported(`mandatory flags 0x${mandatoryFlags.toString(16)}`, xlMagic.length + 4);
    if (length > format.maxOptionalDataBytes)
      throw streamInvalid(`${length} bytes of optional data`, xlMagic.length + 12);
    const optionalData = Buffer.from(await this.source.read(length, 'the configuration'));
    const configBytes = length < 4 ? -1 : optionalData.readUInt32LE(0);
    if (configBytes < 0 || configBytes > length - 4)
      throw streamInvalid('the configuration is longer than its frame', format.xlHeaderBytes);
    const config = withoutTrailingNuls(optionalData.toString('utf8', 4, 4 + configBytes));
    this.visitor.xlHeader?.({ mandatoryFlags, optionalFlags, optionalData, config });
  }

  async #libxlHeader(): Promise<void> {
    const { offset } = this.source;
    const head = await this.source.read(format.libxlHeaderBytes, 'the libxl header');
    if (!head.subarray(0, 8).equals(format.libxlIdent)) throw streamInvalid('not a libxl stream', offset);
    const [version, options] = [head.readUInt32BE(8), head.readUInt32BE(12)];
    if (version !== format.libxlVersion)
      throw streamUnsupported(`libxl stream version ${version}`, offset + 8);
    if ((options & format.libxlOptions.bigEndian) !== 0)
      throw streamUnsupported('a big-endian stream', offset + 12);
    if ((options & ~format.libxlOptions.legacy) !== 0)
      throw streamUnsupported(`libxl stream options 0x${options.toString(16)}`, offset + 12);
    this.visitor.libxlHeader?.({ version, options });
  }

  #admitLibxl({ type, length, offset }: RecordHeader, context: Pick<LibxcHeader, 'type'> | null): void {
    const name = format.recordName('libxl', type);
    if (type === libxlRecord.checkpointEnd || type === libxlRecord.checkpointState)
      throw streamUnsupported(
        `${name}: a checkpointed (Remus or COLO) stream has no single end state`,
        offset,
      );
    if (type > libxlRecord.checkpointState) {
      if (type < format.optionalRecord) throw streamUnsupported(`${name} is mandatory and not known`, offset);
      return;
    }
    if (type === libxlRecord.libxcContext && context !== null)
      throw streamInvalid(`a second ${name}`, offset);
    if (type === libxlRecord.end || type === libxlRecord.libxcContext) {
      if (length !== 0) throw streamInvalid(`${name} has a body of ${length} bytes`, offset);
      if (type === libxlRecord.end && context === null)
        throw streamInvalid('the stream ends without a libxc context', offset);
      return;
    }
    if (context?.type !== 'hvm') throw streamInvalid(`${name} without an HVM guest before it`, offset);
    if (length < 8) throw streamInvalid(`${name} is too short`, offset);
  }

  async #context(): Promise<Pick<LibxcHeader, 'type'>> {
    const { offset } = this.source;
    const magic = Buffer.from(await this.source.read(magicBytes, 'the magic of the pages'));
    if (magic.toString('hex') !== STREAM_MAGIC) return this.libxcStream(magic);
    const { frames } = this.visitor;
    if (!frames) throw streamUnsupported("pages in a stream of dormouse's own", offset);
    let type: LibxcHeader['type'] = 'pv';
    const visitor: FrameVisitor = {
      begin: (first) => {
        type = first.type === 'pv' ? 'pv' : 'hvm';
        return frames.begin(first);
      },
      pages: (descs, bodies) => frames.pages(descs, bodies),
      end: (manifest) => frames.end(manifest),
    };
    await readFrames(this.source, visitor, this.signal, magic);
    return { type };
  }

  /** `read` are the first bytes, which were read already. */
  async libxcStream(read: Buffer = Buffer.alloc(0)): Promise<LibxcHeader> {
    const header = await this.#libxcHeader(read);
    this.visitor.libxcHeader?.(header);
    const order = new StreamOrder(header);
    for (;;) {
      const record = await this.#recordHeader('libxc');
      order.admit(record.type, record.length, record.offset);
      if (record.type === libxcRecord.pageData) await this.#pageData(record, header, order);
      else await this.#carry('libxc', record, order);
      if (record.type === libxcRecord.end) return header;
    }
  }

  async #libxcHeader(read: Buffer): Promise<LibxcHeader> {
    const offset = this.source.offset - read.length;
    const bytes = format.libxcHeaderBytes + format.domainHeaderBytes - read.length;
    const head = Buffer.concat([read, await this.source.read(bytes, 'the libxc headers')]);
    if (!head.subarray(0, 8).equals(format.libxcMarker))
      throw streamUnsupported('a legacy libxc stream', offset);
    if (head.readUInt32BE(8) !== format.libxcIdent) throw streamInvalid('not a libxc stream', offset + 8);
    const [version, options] = [head.readUInt32BE(12), head.readUInt16BE(16)];
    if (version !== 2 && version !== 3)
      throw streamUnsupported(`libxc stream version ${version}`, offset + 12);
    if ((options & format.libxcOptionBigEndian) !== 0)
      throw streamUnsupported('a big-endian stream', offset + 16);
    if (options !== 0) throw streamUnsupported(`libxc stream options 0x${options.toString(16)}`, offset + 16);
    const type = head.readUInt32LE(24);
    if (type !== format.domainType.pv && type !== format.domainType.hvm)
      throw streamUnsupported(`domain type ${type}`, offset + 24);
    if (head.readUInt16LE(28) !== 12) throw streamInvalid(`page shift ${head.readUInt16LE(28)}`, offset + 28);
    if (head.readUIntBE(18, 6) !== 0 || head.readUInt16LE(30) !== 0)
      throw streamInvalid('reserved bytes of the libxc headers are not zero', offset + 18);
    const [xenMajor, xenMinor] = [head.readUInt32LE(32), head.readUInt32LE(36)];
    return { version, options, type: type === format.domainType.pv ? 'pv' : 'hvm', xenMajor, xenMinor };
  }

  async #recordHeader(layer: format.StreamLayer): Promise<RecordHeader> {
    if (this.signal?.aborted === true) throw format.conversionCancelled();
    const { offset } = this.source;
    const head = await this.source.read(format.recordHeaderBytes, 'a record header');
    const [type, length] = [head.readUInt32LE(0), head.readUInt32LE(4)];
    if (length > format.maxRecordBytes)
      throw streamInvalid(`${format.recordName(layer, type)}: length ${length} is above the limit`, offset);
    return { type, length, offset };
  }

  async #carry(
    layer: format.StreamLayer,
    { type, length, offset }: RecordHeader,
    order?: StreamOrder,
  ): Promise<void> {
    const name = format.recordName(layer, type);
    this.#stateBytes += length + 64;
    if (this.#stateBytes > this.limits.maxStateBytes)
      throw streamUnsupported(
        `more than ${this.limits.maxStateBytes} bytes of records beside the pages`,
        offset,
      );
    const body = Buffer.from(await this.source.read(length, name));
    await this.#padding(length, name);
    order?.checkBody(type, body, offset);
    this.visitor.record?.({ layer, type, body, offset });
  }

  async #padding(length: number, name: string): Promise<void> {
    const { offset } = this.source;
    const padding = await this.source.read(format.paddingBytes(length), name);
    if (padding.some((byte) => byte !== 0)) throw streamInvalid(`the padding of ${name} is not zero`, offset);
  }

  async #pageData({ length, offset }: RecordHeader, header: LibxcHeader, order: StreamOrder): Promise<void> {
    const name = format.recordName('libxc', libxcRecord.pageData);
    if (length < 8) throw streamInvalid(`${name} is too short`, offset);
    const head = await this.source.read(8, name);
    const [recordCount, reserved] = [head.readUInt32LE(0), head.readUInt32LE(4)];
    if (reserved !== 0) throw streamInvalid(`${name}: reserved bytes are not zero`, offset);
    if (recordCount === 0) throw streamInvalid(`${name} lists no page`, offset);
    if (8 + recordCount * 8 > length) throw streamInvalid(`${name} is shorter than its list`, offset);
    const list = Buffer.from(await this.source.read(recordCount * 8, name));
    const maxPfns = header.type === 'pv' ? order.nrPfns : this.limits.maxPfns;
    let bodies = 0;
    for (let first = 0; first < recordCount; first += format.batchPfns)
      bodies += this.#slice(list, first, recordCount, offset, header, maxPfns).bodies;
    if (length !== 8 + recordCount * 8 + bodies * pageBytes)
      throw streamInvalid(
        `${name}: length ${length} does not fit ${recordCount} pfns, ${bodies} bodies`,
        offset,
      );
    for (let first = 0; first < recordCount; first += format.batchPfns) {
      const slice = this.#slice(list, first, recordCount, offset, header, maxPfns);
      await this.#visitSlice(slice, name);
    }
  }

  async #visitSlice(slice: PageSlice, name: string): Promise<void> {
    if (this.signal?.aborted === true) throw format.conversionCancelled();
    const bytes = slice.bodies * pageBytes;
    const end = this.source.offset + bytes;
    await this.visitor.pages?.(slice, () => this.source.read(bytes, name));
    await this.source.skip(end - this.source.offset, name);
  }

  /** Decodes and checks up to 1024 entries of a PAGE_DATA list. */
  #slice(
    list: Buffer,
    first: number,
    recordCount: number,
    offset: number,
    header: LibxcHeader,
    maxPfns: number,
  ): PageSlice {
    const [pfns, types] = [this.#pfns, this.#types];
    const count = Math.min(format.batchPfns, recordCount - first);
    const fail = (what: string, i: number) =>
      streamInvalid(`PAGE_DATA: ${what}`, offset + 16 + 8 * (first + i));
    let bodies = 0;
    for (let i = 0; i < count; ++i) {
      const high = list.readUInt32LE((first + i) * 8 + 4);
      const pfn = joined(list.readUInt32LE((first + i) * 8), pfnHalf(high));
      const type = typeOfHalf(high);
      if (((high >>> 20) & 0xff) !== 0) throw fail('reserved bits are not zero', i);
      if (pfn >= maxPfns) throw fail(`pfn ${pfn} is beyond the guest's ${maxPfns} pages`, i);
      if (!format.isLegalType(type)) throw fail(`page type ${type} of pfn ${pfn}`, i);
      if (header.type === 'hvm' && tableLevel(type) !== 0)
        throw fail(`a page table in an HVM guest (pfn ${pfn})`, i);
      if (hasBody(type)) ++bodies;
      pfns[i] = pfn;
      types[i] = type;
    }
    return { recordCount, first, count, pfns, types, bodies, offset };
  }
}

/** Writes again what the parser of Xen's streams understood, byte for byte as the specification has it. */
import { Buffer } from 'node:buffer';
import type { LibxcHeader } from '../../src/xenstream/stream_order.js';
import type { PageSlice, StreamRecord, StreamVisitor, XlHeader } from '../../src/xenstream/stream_parser.js';
import { libxcHeader, libxlHeader, record, u32, u64 } from '../support/xen_stream.js';

export class Rewriter implements StreamVisitor {
  readonly #parts: Buffer[] = [];
  /** Of the PAGE_DATA record that is being read. */
  #pfns: Buffer[] = [];
  #bodies: Buffer[] = [];

  /** Shows each part to another visitor too. */
  beside(other: StreamVisitor): StreamVisitor {
    return {
      xlHeader: (header) => {
        this.xlHeader(header);
        other.xlHeader?.(header);
      },
      libxlHeader: (header) => {
        this.libxlHeader(header);
        other.libxlHeader?.(header);
      },
      libxcHeader: (header) => {
        this.libxcHeader(header);
        other.libxcHeader?.(header);
      },
      record: (one) => {
        this.record(one);
        other.record?.(one);
      },
      pages: async (slice, readBodies) => {
        await this.pages(slice, readBodies);
        await other.pages?.(slice, readBodies);
      },
    };
  }

  xlHeader({ mandatoryFlags, optionalFlags, optionalData }: XlHeader): void {
    const magic = Buffer.from('Xen saved domain, xl format\n \0 \r', 'latin1');
    const words = [0x01020304, mandatoryFlags, optionalFlags, optionalData.length].map((word) => u32(word));
    this.#parts.push(magic, ...words, optionalData);
  }
  libxlHeader({ options }: { options: number }): void {
    this.#parts.push(libxlHeader(options));
  }
  libxcHeader({ version, type, xenMajor, xenMinor }: LibxcHeader): void {
    this.#parts.push(libxcHeader(version, type === 'pv' ? 1 : 2, [xenMajor, xenMinor]));
  }
  record({ type, body }: StreamRecord): void {
    this.#parts.push(record(type, body));
  }

  async pages(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> {
    if (slice.first === 0) [this.#pfns, this.#bodies] = [[], []];
    for (let i = 0; i < slice.count; i++)
      this.#pfns.push(u64(BigInt(slice.pfns[i] ?? 0) | (BigInt(slice.types[i] ?? 0) << 60n)));
    this.#bodies.push(Buffer.from(await readBodies()));
    if (slice.first + slice.count < slice.recordCount) return;
    const body = Buffer.concat([u32(slice.recordCount), u32(0), ...this.#pfns, ...this.#bodies]);
    this.#parts.push(record(1, body));
  }

  bytes = (): Buffer => Buffer.concat(this.#parts);
}

/** Fills a domain from a stream as it arrives: ours, or libxc's v2 or v3. */
import { Buffer } from 'node:buffer';
import {
  parseLibxcStream,
  type PageSlice,
  type StreamRecord,
  type StreamVisitor,
} from '../xenstream/stream_parser.js';
import { batchPfns } from '../xenstream/stream_format.js';
import { Survey } from '../xenstream/survey.js';
import { readFrames } from '../xenstream/frames/reader.js';
import { hasBody } from '../pfn/page_type.js';
import { DomainFiller, type PageBuilder } from './domain_filler.js';
import type { ByteReader } from '../xenstream/frames/byte_reader.js';
import type { DomainState } from '../domain/state.js';
import { descriptorHalf, lowHalf } from '../pfn/page_words.js';
import { classNumber, classOfType } from '../pfn/counts.js';

/** Most bytes of records beside the pages. */
const maxStateBytes = 32 << 20;

/** A builder that libxl waits for: it sets the processor's policy and says what of it is missing. */
export interface HelperTarget extends PageBuilder {
  setPolicy(state: Pick<DomainState, 'cpuidPolicy' | 'msrPolicy'>): number;
}

/** Who is told what comes, and asked once the processor policy is known. */
export interface Receiver {
  say(line: string): void;
  progress(doing: string, done: number, total: number): void;
  staticDataDone(missing: number): Promise<void>;
}

export interface StreamRestore {
  readonly builder: HelperTarget;
  readonly source: ByteReader;
  readonly receiver: Receiver;
  readonly signal: AbortSignal;
}

const typeName = (type: string): string => (type === 'pv' ? 'x86 PV' : 'x86 HVM');

function announce({ receiver }: StreamRestore, found: string): void {
  receiver.say(`Found ${found}`);
  receiver.say('Restoring domain');
}

const noBodies = Buffer.alloc(0);

class LibxcRestorer implements StreamVisitor {
  readonly #survey = new Survey();
  readonly #descs = new BigUint64Array(batchPfns);
  readonly #words = new Uint32Array(this.#descs.buffer);
  #begun = false;

  constructor(
    private readonly restore: StreamRestore,
    private readonly filler: DomainFiller,
  ) {}

  libxcHeader: NonNullable<StreamVisitor['libxcHeader']> = (header) => {
    this.#survey.libxcHeader(header);
    const { type, xenMajor, xenMinor } = header;
    announce(this.restore, `${typeName(type)} domain from Xen ${xenMajor}.${xenMinor}`);
  };

  record(record: StreamRecord): void {
    this.#survey.record(record);
  }

  /** Processor policy and geometry: all that comes before the first page. */
  async #begin(): Promise<void> {
    if (this.#begun) return;
    this.#begun = true;
    const { receiver, builder } = this.restore;
    await receiver.staticDataDone(builder.setPolicy(this.#survey.state));
    await this.filler.begin(this.#survey);
  }

  async pages(slice: PageSlice, readBodies: () => Promise<Buffer>): Promise<void> {
    if (this.#survey.verifySeen) return;
    await this.#begin();
    this.#survey.pages(slice);
    for (let i = 0; i < slice.count; ++i) {
      const [pfn, type] = [slice.pfns[i] ?? 0, slice.types[i] ?? 0];
      this.#words[2 * i] = lowHalf(pfn);
      this.#words[2 * i + 1] = descriptorHalf(pfn, classNumber(classOfType(type)), type);
    }
    const anyBody = slice.types.subarray(0, slice.count).some(hasBody);
    const bodies = anyBody ? await readBodies() : noBodies;
    const placing = await this.filler.place(this.#descs.subarray(0, slice.count), bodies);
    await placing.done;
    const { placed } = this.filler;
    this.restore.receiver.progress('Frames', placed, Math.max(placed, this.#survey.nrPfns));
  }

  async finish(): Promise<void> {
    await this.#begin();
    const { nrPfns, guestWidth, p2mFrames, state } = this.#survey;
    await this.filler.finish({ nrPfns, guestWidth, p2mFrames, p2mGeneration: 0 }, state);
  }
}

async function withFiller(
  { builder }: StreamRestore,
  body: (filler: DomainFiller) => Promise<void>,
): Promise<void> {
  const filler = new DomainFiller(builder);
  try {
    await body(filler);
  } finally {
    await filler.close();
  }
}

/** From libxc's marker on. STREAM_INVALID, STREAM_UNSUPPORTED, IMAGE_DAMAGED, NO_MEMORY, PAGE_TABLE_INVALID, CANCELLED. */
export function restoreLibxcStream(restore: StreamRestore): Promise<void> {
  return withFiller(restore, async (filler) => {
    const restorer = new LibxcRestorer(restore, filler);
    const limits = { maxPfns: restore.builder.mostPfns, maxStateBytes };
    await parseLibxcStream(restore.source, restorer, limits, restore.signal);
    await restorer.finish();
  });
}

/** From the head of our own stream on. Errors as above. */
export function restoreFrames(restore: StreamRestore): Promise<void> {
  const { builder, receiver, source, signal } = restore;
  return withFiller(restore, async (filler) => {
    let nrPfns = 0;
    await readFrames(
      source,
      {
        begin: async (begin) => {
          announce(restore, `${typeName(begin.type)} domain from ${begin.tool}`);
          await receiver.staticDataDone(builder.setPolicy(begin));
          ({ nrPfns } = begin);
          await filler.begin({ guestWidth: begin.guestWidth, nrPfns: 1 });
        },
        pages: async (descs, bodies) => {
          const placing = await filler.place(descs, bodies);
          receiver.progress('Frames', filler.placed, Math.max(filler.placed, nrPfns));
          return placing;
        },
        end: ({ geometry, state }) => filler.finish(geometry, state),
      },
      signal,
    );
  });
}

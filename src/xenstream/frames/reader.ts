/** Reads a stream of ours from its head to its last frame, checked, and hands its parts on as they come. */
import { Buffer } from 'node:buffer';
import { native } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import { MAX_PFNS } from '../../image/format.js';
import { namedCounts, sameCounts, storedHash } from '../../image/frame.js';
import type { Manifest } from '../../image/manifest.js';
import { DecodingLanes, type Handed } from './decoding_lanes.js';
import { decodeFrameHead, decodeStreamHead, type FrameHead } from './head.js';
import { FRAME_HEAD_SIZE, STREAM_HEAD_SIZE } from './layout.js';
import { decodeBegin, decodeEnd, type StreamBegin } from './messages.js';
import { nativePageStream } from './native.js';
import { streamInvalid, streamUnsupported, type ByteReader } from './byte_reader.js';
import { classOfHalf, joined, pfnHalf } from '../../pfn/page_words.js';

export interface FrameVisitor {
  begin(begin: StreamBegin): Promise<void> | void;
  /**
   * Pages as descs (native/image/chunk.h) and the bodies of those that have one, in the order of the stream. Views until the call
   * returns, or until what it returns is done: the next pages come meanwhile.
   */
  pages(descs: BigUint64Array, bodies: Buffer): Handed | Promise<Handed>;
  end(manifest: Manifest): Promise<void> | void;
}

/**
 * A stream lists all of a guest's pages, those without a frame too, nearly in order: a pfn beyond so many, and 16 for each that was
 * listed, is one of a guest out of all proportion, which is to cost memory.
 */
const mostAhead = 2 ** 26;

/** The class of each pfn as it came last. Grows with what comes, whatever size the stream claims. */
class Accounts {
  #classes = new Uint8Array(1024);
  #listed = 0;

  /** STREAM_INVALID. */
  take(descs: BigUint64Array, offset: number): void {
    this.#listed += descs.length;
    const most = mostAhead + 16 * this.#listed;
    const words = new Uint32Array(descs.buffer, descs.byteOffset, descs.length * 2);
    for (let i = 0; i < descs.length; ++i) {
      const high = words[2 * i + 1] ?? 0;
      const pfn = joined(words[2 * i] ?? 0, pfnHalf(high));
      if (pfn >= most) throw streamInvalid(`page ${pfn} after ${this.#listed} pages`, offset);
      if (pfn >= this.#classes.length) this.#grow(pfn + 1);
      this.#classes[pfn] = classOfHalf(high);
    }
  }

  #grow(least: number): void {
    const grown = new Uint8Array(Math.min(MAX_PFNS, Math.max(least, 2 * this.#classes.length)));
    grown.set(this.#classes);
    this.#classes = grown;
  }

  /** STREAM_INVALID unless every pfn came and the classes are as many as the sender counted. */
  check({ geometry, pages }: Manifest, nrPfns: number, offset: number): void {
    const absent = this.#classes.subarray(0, nrPfns).indexOf(0);
    if (absent !== -1 || nrPfns > this.#classes.length)
      throw streamInvalid(`page ${absent === -1 ? this.#classes.length : absent} never came`, offset);
    const byClass = new Array<number>(8).fill(0);
    for (const pageClass of this.#classes.subarray(0, nrPfns))
      byClass[pageClass] = (byClass[pageClass] ?? 0) + 1;
    if (geometry.nrPfns !== nrPfns || !sameCounts(namedCounts(byClass), pages))
      throw streamInvalid('the pages that came are not those that the sender counted', offset);
  }
}

/** Of a body whose checksum is right: one that says nonsense was made so by its sender. */
function misunderstood(thrown: unknown, frame: number, offset: number): DormouseError {
  const error = asDormouseError(thrown);
  const message = `frame ${frame}: ${error.message}`;
  if (error.code === 'IMAGE_INCOMPATIBLE') return streamUnsupported(message, offset);
  return error.code === 'IMAGE_DAMAGED' ? streamInvalid(message, offset) : error;
}

class FrameReader {
  readonly #lanes = new DecodingLanes();
  readonly #accounts = new Accounts();
  #stream: { streamId: Buffer; newer: boolean } = { streamId: Buffer.alloc(16), newer: false };
  #frames = 0;
  #frameOffset = 0;
  #nextHead: Buffer | undefined;

  constructor(
    private readonly source: ByteReader,
    private readonly visitor: FrameVisitor,
    private readonly signal: AbortSignal | undefined,
  ) {}

  async run(read: Buffer): Promise<void> {
    const rest = await this.source.read(STREAM_HEAD_SIZE - read.length, 'the head of the stream');
    const offset = this.source.offset - STREAM_HEAD_SIZE;
    this.#stream = decodeStreamHead(Buffer.concat([read, rest]), offset);
    const begin = this.#understand(decodeBegin, await this.#expect('begin'));
    await this.visitor.begin(begin);
    try {
      await this.#end(begin, await this.#allPages(begin));
    } finally {
      // Whoever stops at an error must find nothing at work in the domain.
      await this.#lanes.settle();
    }
  }

  /** Up to the last frame, which it returns. */
  async #allPages({ nrPfns }: StreamBegin): Promise<Manifest> {
    for (;;) {
      const frame = await this.#next();
      if (frame.kind === 'end') {
        const last = Buffer.from(frame.body);
        await this.#lanes.finish();
        return this.#understand(decodeEnd, last);
      }
      if (frame.kind !== 'pages') throw streamInvalid('a second first frame', this.#frameOffset);
      await this.#pages(frame.body, nrPfns);
    }
  }

  async #end(begin: StreamBegin, manifest: Manifest): Promise<void> {
    this.#accounts.check(manifest, begin.nrPfns, this.#frameOffset);
    const { domain, geometry, state, consistency } = manifest;
    const same =
      domain.type === begin.type &&
      geometry.guestWidth === begin.guestWidth &&
      state.cpuidPolicy.equals(begin.cpuidPolicy) &&
      state.msrPolicy.equals(begin.msrPolicy);
    if (!same || consistency !== 'suspend-point')
      throw streamInvalid('the last frame speaks of another guest than the first', this.#frameOffset);
    await this.visitor.end(manifest);
  }

  #pages(body: Buffer, nrPfns: number): Promise<void> {
    const [frame, offset, bodyBytes] = [this.#frames - 1, this.#frameOffset, body.length];
    return this.#lanes.take(body, {
      decode: (lane) =>
        nativePageStream()
          .decodeFrame(lane.frame, bodyBytes, this.#stream.newer, nrPfns, lane.descs, lane.bodies)
          .catch((thrown: unknown) => {
            throw misunderstood(thrown, frame, offset);
          }),
      hand: (descs, bodies) => {
        this.#accounts.take(descs, offset);
        return this.visitor.pages(descs, bodies);
      },
    });
  }

  /** A copy: what is decoded from it refers to it. */
  async #expect(kind: FrameHead['kind']): Promise<Buffer> {
    const frame = await this.#next();
    if (frame.kind === kind) return Buffer.from(frame.body);
    throw streamInvalid(`a frame of ${frame.kind} where one of ${kind} should be`, this.#frameOffset);
  }

  #understand<T>(decode: (body: Buffer) => T, body: Buffer): T {
    try {
      return native(() => decode(body));
    } catch (thrown) {
      throw misunderstood(thrown, this.#frames - 1, this.#frameOffset);
    }
  }

  /** The body is a view until the next read. */
  async #next(): Promise<{ kind: FrameHead['kind']; body: Buffer }> {
    if (this.signal?.aborted === true) throw new DormouseError('CANCELLED', 'cancelled');
    const number = this.#frames++;
    const ahead = this.#nextHead ?? (await this.source.read(FRAME_HEAD_SIZE, `the head of frame ${number}`));
    this.#frameOffset = this.source.offset - FRAME_HEAD_SIZE;
    const head = decodeFrameHead(ahead, this.#stream.streamId, number, this.#frameOffset);
    const body = await this.#body(head, number);
    if (storedHash(body) !== head.bodyHash)
      throw streamInvalid(`frame ${number} is damaged`, this.#frameOffset);
    return { kind: head.kind, body };
  }

  /** With the head of the frame that follows pages: each read takes a turn of the event loop and a thread. */
  async #body({ kind, bodySize }: FrameHead, number: number): Promise<Buffer> {
    const follows = kind === 'pages' ? FRAME_HEAD_SIZE : 0;
    const bytes = await this.source.read(bodySize + follows, `frame ${number}`);
    this.#nextHead = follows > 0 ? Buffer.from(bytes.subarray(bodySize)) : undefined;
    return bytes.subarray(0, bodySize);
  }
}

/**
 * Reads from the head, of which `read` was read already, to the last frame; nothing beyond it is read. STREAM_INVALID with the offset for damage of any kind,
 * STREAM_UNSUPPORTED, CANCELLED, and what the visitor throws.
 */
export async function readFrames(
  source: ByteReader,
  visitor: FrameVisitor,
  signal?: AbortSignal,
  read: Buffer = Buffer.alloc(0),
): Promise<void> {
  await new FrameReader(source, visitor, signal).run(read);
}

/** Frames of pages that are decoded several at a time, and handed on one by one in the order in which they came. */
import { Buffer } from 'node:buffer';
import { availableParallelism } from 'node:os';
import { MAX_CHUNK_BODIES, MAX_CHUNK_PAGES, MAX_CHUNK_SPAN } from '../../image/format.js';
import { pageBytes } from '../../pfn/page_words.js';

/** A thread of libuv's four stays free for reading. */
const mostLanes = 3;

/** Where a frame is decoded: belongs to it until its pages are done with. */
export class Lane {
  readonly frame = Buffer.allocUnsafeSlow(MAX_CHUNK_SPAN);
  readonly descs = new BigUint64Array(MAX_CHUNK_PAGES);
  readonly bodies = Buffer.allocUnsafeSlow(MAX_CHUNK_BODIES * pageBytes);
}

/** Of streams that have ended; some MiB each. */
const idle: Lane[] = [];

/** What is still done with pages that were taken, while the next ones come. */
export interface Kept {
  readonly done: Promise<void>;
}

/** Nothing, if nothing is done with them any more. */
export type Handed = Kept | undefined;

export interface FrameWork {
  /** Beside others; resolves to how many descs and bodies there are. */
  readonly decode: (lane: Lane) => Promise<readonly [pages: number, bodies: number]>;
  /** One after the other. The views live until it returns, or what it returns is done. */
  readonly hand: (descs: BigUint64Array, bodies: Buffer) => Handed | Promise<Handed>;
}

export class DecodingLanes {
  #free = Math.min(mostLanes, availableParallelism() + 1);
  /** Neither rejects: what goes wrong is kept until somebody can be told. */
  readonly #work = new Set<Promise<void>>();
  #handed: Promise<unknown> = Promise.resolve();
  #failure: { readonly thrown: unknown } | undefined;
  readonly #fail = (thrown: unknown): void => {
    this.#failure ??= { thrown };
  };

  /** Waits for a lane and returns; the body is copied. Throws what went wrong with a frame before. */
  async take(body: Buffer, work: FrameWork): Promise<void> {
    const lane = await this.#freeLane();
    body.copy(lane.frame);
    const done = this.#through(lane, work)
      .catch(this.#fail)
      .finally(() => {
        this.#work.delete(done);
        this.#free++;
        idle.push(lane);
      });
    this.#work.add(done);
  }

  /** Until nothing is under way; throws what went wrong. */
  async finish(): Promise<void> {
    await this.settle();
    this.#tellFailure();
  }

  /** Until nothing is under way, whatever went wrong. */
  async settle(): Promise<void> {
    await Promise.all(this.#work);
  }

  async #freeLane(): Promise<Lane> {
    for (;;) {
      this.#tellFailure();
      if (this.#free > 0) {
        this.#free--;
        return idle.pop() ?? new Lane();
      }
      await Promise.race(this.#work);
    }
  }

  #tellFailure(): void {
    if (this.#failure) throw this.#failure.thrown;
  }

  async #through(lane: Lane, { decode, hand }: FrameWork): Promise<void> {
    const before = this.#handed;
    const decoding = decode(lane);
    const handing = (async () => {
      // The turn is kept also by a frame that is damaged.
      const [decoded] = await Promise.allSettled([decoding, before]);
      if (decoded.status === 'rejected') throw decoded.reason as Error;
      if (this.#failure) return undefined;
      const [pages, bodies] = decoded.value;
      return hand(lane.descs.subarray(0, pages), lane.bodies.subarray(0, bodies * pageBytes));
    })();
    this.#handed = handing.catch(this.#fail);
    const kept = await handing;
    await kept?.done;
  }
}

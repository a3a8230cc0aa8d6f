/** Remembers in few runs how a stream's pages were divided into PAGE_DATA records, and plays that back. */
import { DormouseError } from '../errors.js';
import { batchPfns } from './stream_format.js';
import { maxLayoutEntries, type PageLayout } from './stream_manifest.js';

/** A set of pfns that grows as they are added. */
export class PfnSet {
  #bits = new Uint8Array(1 << 10);

  /** False if it was in the set before. */
  add(pfn: number): boolean {
    const byte = Math.floor(pfn / 8);
    if (byte >= this.#bits.length) this.#grow(byte + 1);
    const bit = 1 << (pfn & 7);
    const before = this.#bits[byte] ?? 0;
    this.#bits[byte] = before | bit;
    return (before & bit) === 0;
  }
  has(pfn: number): boolean {
    return ((this.#bits[Math.floor(pfn / 8)] ?? 0) & (1 << (pfn & 7))) !== 0;
  }
  #grow(bytes: number): void {
    const bigger = new Uint8Array(Math.max(bytes, this.#bits.length * 2));
    bigger.set(this.#bits);
    this.#bits = bigger;
  }
}

export class LayoutRecorder {
  readonly #batches: [count: number, records: number][] = [];
  readonly #runs: [first: number, count: number][] = [];
  /** True once there were too many runs. */
  lost = false;

  /** A PAGE_DATA record of `count` pfns begins. */
  record(count: number): void {
    const last = this.#batches.at(-1);
    if (last?.[0] === count) ++last[1];
    else this.#push(this.#batches, [count, 1]);
  }
  page(pfn: number): void {
    const last = this.#runs.at(-1);
    if (last !== undefined && last[0] + last[1] === pfn) ++last[1];
    else this.#push(this.#runs, [pfn, 1]);
  }
  #push(list: [number, number][], entry: [number, number]): void {
    if (list.length < maxLayoutEntries) list.push(entry);
    else this.lost = true;
  }
  /** Null if it took too many runs to tell. */
  finish(): PageLayout | null {
    return this.lost ? null : { batches: this.#batches, runs: this.#runs };
  }
}

/** Gives the pfns of one PAGE_DATA record after the other. */
export class LayoutPlayer {
  #batch = 0;
  #record = 0;
  #run = 0;
  #inRun = 0;

  constructor(private readonly layout: PageLayout) {}

  /** Pfns in the next record, 0 after the last. */
  nextCount(): number {
    return this.layout.batches[this.#batch]?.[0] ?? 0;
  }

  /** The pfns of the next record, at most 1024 at a time; the caller takes all before asking for another. */
  *nextRecord(): Generator<number[]> {
    let left = this.nextCount();
    if (++this.#record >= (this.layout.batches[this.#batch]?.[1] ?? 0)) {
      ++this.#batch;
      this.#record = 0;
    }
    while (left > 0) {
      const pfns = this.#take(Math.min(left, batchPfns));
      left -= pfns.length;
      yield pfns;
    }
  }

  #take(count: number): number[] {
    const pfns: number[] = [];
    while (pfns.length < count) {
      const run = this.layout.runs[this.#run];
      if (run === undefined) throw new DormouseError('IMAGE_DAMAGED', 'manifest.stream lists too few pages');
      const taken = Math.min(count - pfns.length, run[1] - this.#inRun);
      for (let i = 0; i < taken; ++i) pfns.push(run[0] + this.#inRun + i);
      this.#inRun += taken;
      if (this.#inRun === run[1]) {
        ++this.#run;
        this.#inRun = 0;
      }
    }
    return pfns;
  }
}

/** Every pfn ascending, 1024 a record: what libxc writes. */
export function stockLayout(nrPfns: number): PageLayout {
  const whole = Math.floor(nrPfns / batchPfns);
  const rest = nrPfns % batchPfns;
  const batches: [number, number][] = [];
  if (whole > 0) batches.push([batchPfns, whole]);
  if (rest > 0) batches.push([rest, 1]);
  return { batches, runs: [[0, nrPfns]] };
}

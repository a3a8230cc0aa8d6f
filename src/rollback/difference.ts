/**
 * What differs between a domain and an image of it. All of it is compared once, while the guest runs; that pass also reads and
 * checks every chunk that can be needed. After it only what the host's log names can have become different.
 */
import { availableParallelism, freemem } from 'node:os';
import { performance } from 'node:perf_hooks';
import { native } from '../addon.js';
import type { OperationOptions } from '../domain/progress.js';
import type { MemoryHandle, RewindHandle } from '../handle.js';
import type { ImageReader } from '../image/reader.js';
import { pageBytes } from '../pfn/page_words.js';
import { chunksPerStep, runOverRange, runPieces } from '../worker/pool.js';
import { type Piece, steps } from '../worker/steps.js';

/** Content that is decoded and kept ahead; what is beyond is decoded while the guest stands. */
const mostKeptBytes = 512 * 1024 ** 2;

export type Plan = ReturnType<ReturnType<typeof steps>['rewindPlan']>;

/** Of a domain at its suspend point: its start info (none of one that is not PV) is put back whatever it holds. */
export interface FromSuspendPoint {
  readonly startInfoPfn: number | null;
}

/** Of a domain that was paused: every page has the frame that it had then; these pages stay as they are. */
export interface FromPause {
  readonly alonePfns: readonly number[];
}

export class Difference {
  readonly #handle: RewindHandle;

  constructor(
    private readonly reader: ImageReader,
    private readonly memory: MemoryHandle,
    from: FromSuspendPoint | FromPause,
  ) {
    const leaves = BigUint64Array.from(reader.manifest.geometry.p2mFrames, BigInt);
    // A control domain may have little memory itself.
    const most = Math.min(reader.nrPfns, Math.floor(Math.min(mostKeptBytes, freemem() / 4) / pageBytes));
    const startInfoPfn = 'startInfoPfn' in from ? from.startInfoPfn : null;
    this.#handle = native(() => steps().rewindCreate(reader.handle, leaves, startInfoPfn, most));
    if ('alonePfns' in from)
      native(() => steps().rewindKeepFrames(this.#handle, BigUint64Array.from(from.alonePfns, BigInt)));
  }

  /** Types and frames of all pages. */
  look(): void {
    native(() => steps().rewindLook(this.#handle, this.memory));
  }

  /** Every page of the image. IMAGE_DAMAGED and the reader's errors, CANCELLED. */
  async compare({ signal, onProgress }: OperationOptions): Promise<void> {
    const { reader, memory } = this;
    const startedMs = performance.now();
    let doneUnits = 0;
    await runOverRange({
      total: reader.nrUnits,
      stride: chunksPerStep,
      signal,
      task: (lane, first, count) => ({
        step: 'rewind-compare',
        rewind: this.#handle,
        memory,
        lane,
        first,
        count,
      }),
      done: (count) => {
        doneUnits += count;
        onProgress?.({
          phase: 'verify',
          donePages: Math.round((doneUnits / reader.nrUnits) * reader.nrPfns),
          totalPages: reader.nrPfns,
          storedBytes: reader.storedBytes,
          counts: reader.counts,
          elapsedMs: performance.now() - startedMs,
        });
      },
    });
  }

  /**
   * Of a domain that stands, after all of it was compared: what can differ by now is what its log named since, or anything, where that
   * is null. Its content is kept. Errors: as `compare`.
   */
  async settle(logged: readonly Buffer[] | null, options: OperationOptions): Promise<void> {
    for (const bitmap of logged ?? []) this.merge(bitmap);
    if (!logged) {
      this.look();
      if (!steps().rewindSuspectAll(this.#handle)) await this.compare(options);
    }
    await this.keep(this.missing());
  }

  merge(logged: Buffer): void {
    steps().rewindMerge(this.#handle, logged);
  }

  /** Chunks with pages that may differ by now, and whose content is not kept. */
  missing(): Piece[] {
    return steps().rewindMissing(this.#handle);
  }

  async keep(pieces: readonly Piece[]): Promise<void> {
    if (pieces.length === 0) return;
    const rewind = this.#handle;
    await runPieces({
      pieces,
      task: (lane, first, count) => ({ step: 'rewind-keep', rewind, lane, first, count }),
    });
  }

  plan(whole: boolean): Plan {
    return native(() => steps().rewindPlan(this.#handle, this.memory, whole));
  }

  /** Puts back what differs; how many pages that was. */
  async write(): Promise<number> {
    const { memory } = this;
    const rewind = this.#handle;
    let [putPages] = await native(() => steps().rewindWrite(rewind, memory, availableParallelism()));
    const pieces = this.missing();
    if (pieces.length > 0)
      await runPieces({
        pieces,
        task: (lane, first, count) => ({ step: 'rewind-place', rewind, memory, lane, first, count }),
        done: (_, counts) => (putPages += counts?.[0] ?? 0),
      });
    return putPages;
  }

  close(): void {
    steps().rewindRelease(this.#handle);
  }
}

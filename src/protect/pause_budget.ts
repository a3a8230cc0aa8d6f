/** What a pause will take, from what the last ones took: a fixed part and one for each page that is copied in it. */

/** Before anything was measured: a slow machine's. */
const firstGuess = { fixedMs: 0.3, perPageMs: 0.002 };
/** Weight of the newest measurement. */
const newest = 0.3;

export class PauseBudget {
  #fixedMs = firstGuess.fixedMs;
  #perPageMs = firstGuess.perPageMs;

  constructor(readonly maxMs: number) {}

  predictMs(pages: number): number {
    return this.#fixedMs + this.#perPageMs * pages;
  }

  fits(pages: number): boolean {
    return this.predictMs(pages) <= this.maxMs;
  }

  /** What the error was is given to the part that is the larger one of the prediction. */
  learn(pages: number, pauseMs: number): void {
    const error = (pauseMs - this.predictMs(pages)) * newest;
    const copyMs = this.#perPageMs * pages;
    if (copyMs > this.#fixedMs) this.#perPageMs = Math.max(0, this.#perPageMs + error / pages);
    else this.#fixedMs = Math.max(0, this.#fixedMs + error);
  }
}

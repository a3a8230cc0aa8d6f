/** What a pause will take, from what the last ones took: a fixed part and one for each page that is copied in it. */

/** How much a measurement counts for when the next one has come. */
const decay = 0.85;

/** The line that fits the pauses best, the later ones counting for more. */
export class PauseBudget {
  // Before anything was measured two pauses of a slow machine stand for it: of no page, and of a thousand.
  #weight = 2;
  #pages = 1000;
  #ms = 2.6;
  #pagesSquared = 1e6;
  #pagesMs = 2300;
  #perPageMs = 0.002;

  constructor(readonly maxMs: number) {}

  get #fixedMs(): number {
    return Math.max(0, (this.#ms - this.#perPageMs * this.#pages) / this.#weight);
  }

  predictMs(pages: number): number {
    return this.#fixedMs + this.#perPageMs * pages;
  }

  fits(pages: number): boolean {
    return this.predictMs(pages) <= this.maxMs;
  }

  /** After a point that was skipped: the pauses count for less until one is tried again, for what was slow may be over. */
  skipped(): void {
    this.#ms *= decay;
    this.#pagesMs *= decay;
    this.#perPageMs *= decay;
  }

  learn(pages: number, pauseMs: number): void {
    this.#weight = this.#weight * decay + 1;
    this.#pages = this.#pages * decay + pages;
    this.#ms = this.#ms * decay + pauseMs;
    this.#pagesSquared = this.#pagesSquared * decay + pages ** 2;
    this.#pagesMs = this.#pagesMs * decay + pages * pauseMs;
    const spread = this.#weight * this.#pagesSquared - this.#pages ** 2;
    // Pauses that all copied as many pages tell the two parts not apart: then the slope stays what it was.
    if (spread > 1e-3 * this.#weight * this.#pagesSquared)
      this.#perPageMs = (this.#weight * this.#pagesMs - this.#pages * this.#ms) / spread;
    const mostPerPageMs = this.#pages > 0 ? this.#ms / this.#pages : Infinity;
    this.#perPageMs = Math.min(Math.max(0, this.#perPageMs), mostPerPageMs);
  }
}

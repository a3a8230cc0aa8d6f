/** Which point of a line to try next: its first one is good, its last one bad, and what is bad once stays so. */

export const verdicts = ['good', 'bad', 'skip'] as const;
export type Verdict = (typeof verdicts)[number];

/** Of each point of the line, as far as it is known. */
export type Known = readonly (Verdict | undefined)[];

/** The last one that is good and the first one that is bad. */
export function boundsOf(known: Known): { readonly good: number; readonly bad: number } {
  const bad = known.indexOf('bad');
  return { good: known.lastIndexOf('good', bad), bad };
}

/**
 * The one nearest to the middle between the two, or null if all in between are known. What makes a point impossible to judge is
 * often so of its neighbours too: with each one that was skipped the next is twice as far from all that is known, or as far as
 * can be, and none between two of them is tried before all others are.
 */
export function nextTrial(known: Known): number | null {
  const { good, bad } = boundsOf(known);
  const between = Array.from({ length: bad - good - 1 }, (_, i) => good + 1 + i);
  const skipped = between.filter((at) => known[at] === 'skip');
  const open = between.filter((at) => known[at] === undefined);
  const [first = bad, last = good] = [skipped[0], skipped.at(-1)];
  const outer = open.filter((at) => at < first || at > last);
  const candidates = outer.length > 0 ? outer : open;
  const apart = (at: number): number =>
    skipped.reduce((least, other) => Math.min(least, Math.abs(other - at)), Math.min(at - good, bad - at));
  const farthest = candidates.reduce((most, at) => Math.max(most, apart(at)), 0);
  const wanted = Math.min(farthest, 2 ** (skipped.length - 1));
  const fromMiddle = (at: number): number => Math.abs(2 * at - good - bad);
  const [next = null] = candidates
    .filter((at) => apart(at) >= wanted)
    .sort((a, b) => fromMiddle(a) - fromMiddle(b));
  return next;
}

/** How many more trials it takes if none is skipped. */
export function trialsLeft(known: Known): number {
  const { good, bad } = boundsOf(known);
  return Math.ceil(Math.log2(bad - good));
}

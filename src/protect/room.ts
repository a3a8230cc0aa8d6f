/** How much disk the points of a domain take, and what goes when it is too much: pure functions. */

/** An increment keeps all that it needs: of a chain so much longer than its first image a new one is begun. */
const longestOfWhole = 4;

export interface ChainSize {
  /** Of the image that the chain began with. */
  readonly wholeBytes: number;
  /** Of all of its images. */
  readonly chainBytes: number;
}

/**
 * Whether the next point is to be a whole image: old points take their room with them only when no younger one is built on theirs.
 * With a limit half of it is one chain's, if that is
 * more than its first image and some increments. `ages`: whether points are ever forgotten.
 */
export function beginsChain(
  { wholeBytes, chainBytes }: ChainSize,
  { maxBytes, ages }: { readonly maxBytes: number; readonly ages: boolean },
): boolean {
  if (chainBytes > Math.max(maxBytes / 2, 1.5 * wholeBytes)) return true;
  return ages && chainBytes > wholeBytes * (1 + longestOfWhole);
}

export interface Occupant {
  readonly id: string;
  readonly chainId: string;
  readonly pinned: boolean;
}

/**
 * Points to forget for room, the oldest chain first and a whole one at a time; none of `head`'s, which the next point is built on.
 * Empty: there is nothing left to give up.
 */
export function oldestChain(points: readonly Occupant[], headChain: string | null): string[] {
  const goes = points.filter(({ chainId, pinned }) => !pinned && chainId !== headChain);
  const [first] = goes;
  return goes.filter(({ chainId }) => chainId === first?.chainId).map(({ id }) => id);
}

/** The line of points from one to another: what a domain went through, but for what it was taken back from. */

interface Link {
  readonly id: string;
  /** The point that it goes on from. */
  readonly parent: string | null;
  readonly domid: number;
}

/** When a domain was taken back, named as points are, and to which point. */
export interface Return {
  readonly id: string;
  readonly point: string;
}

/**
 * Finds the nearest ancestor that is there. What a point that was forgotten went on from is no longer written down, but follows from what
 * happened before it: the last point, or the one that the domain was taken back to since. Nothing goes on from a domain of another id.
 */
class Ancestry {
  readonly #points: ReadonlyMap<string, Link>;
  /** What the domain was at then, ascending. */
  readonly #history: readonly Return[];

  constructor(points: readonly Link[], returns: readonly Return[]) {
    this.#points = new Map(points.map((point) => [point.id, point]));
    this.#history = [...points.map(({ id }) => ({ id, point: id })), ...returns].sort((a, b) =>
      a.id < b.id ? -1 : 1,
    );
  }

  /** What goes on from something younger is not believed. */
  parentOf(id: string): string | null {
    const child = this.#points.get(id);
    if (child === undefined || child.parent === null || child.parent >= id) return null;
    if (this.#points.has(child.parent)) return child.parent;
    const found = this.#forgottenFrom(child.parent);
    return found?.domid === child.domid ? found.id : null;
  }

  /** The nearest ancestor of a point that is not there. */
  #forgottenFrom(id: string): Link | null {
    for (let at = id; ;) {
      const before = this.#lastBefore(at);
      if (!before || before.point >= at) return null;
      const point = this.#points.get(before.point);
      if (point) return point;
      at = before.point;
    }
  }

  #lastBefore(id: string): Return | undefined {
    let [low, high] = [0, this.#history.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#history[middle]?.id ?? '') < id) low = middle + 1;
      else high = middle;
    }
    return this.#history[low - 1];
  }
}

/** The points that lead from one to another, both among them, the oldest first; null if the first is no ancestor of the second. */
export function lineOf(
  points: readonly Link[],
  returns: readonly Return[],
  from: string,
  to: string,
): string[] | null {
  const ancestry = new Ancestry(points, returns);
  const line = [to];
  for (let at: string | null = to; at !== null && at > from;) {
    at = ancestry.parentOf(at);
    if (at !== null) line.push(at);
  }
  return line.at(-1) === from ? line.reverse() : null;
}

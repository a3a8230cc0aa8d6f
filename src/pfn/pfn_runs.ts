/** Sets of pfns as runs `[first, count]`: sorted, disjoint, never adjacent, counts above zero. */
export type PfnRun = readonly [first: number, count: number];

/** Runs of pfns that come in ascending order without repeats. RangeError where they do not. */
export function runsOf(pfns: Iterable<number>): PfnRun[] {
  const runs: PfnRun[] = [];
  let first = -1;
  let count = 0;
  for (const pfn of pfns) {
    if (!Number.isSafeInteger(pfn) || pfn < 0) throw new RangeError(`${pfn} is no pfn`);
    if (count > 0 && pfn < first + count) throw new RangeError(`pfn ${pfn} is out of order`);
    if (count > 0 && pfn === first + count) {
      count++;
      continue;
    }
    if (count > 0) runs.push([first, count]);
    first = pfn;
    count = 1;
  }
  if (count > 0) runs.push([first, count]);
  return runs;
}

/** The pfns of runs, one by one. */
export function* pfnsOf(runs: Iterable<PfnRun>): Generator<number> {
  for (const [first, count] of runs) for (let pfn = first; pfn < first + count; pfn++) yield pfn;
}

/** How many pfns runs hold. */
export function countOf(runs: Iterable<PfnRun>): number {
  let total = 0;
  for (const [, count] of runs) total += count;
  return total;
}

/** The union of runs given in any order, overlapping or not. */
export function unionOf(runs: Iterable<PfnRun>): PfnRun[] {
  const sorted = [...runs].filter(([, count]) => count > 0).sort((a, b) => a[0] - b[0]);
  const union: [number, number][] = [];
  for (const [first, count] of sorted) {
    const last = union.at(-1);
    if (last && first <= last[0] + last[1]) last[1] = Math.max(last[1], first + count - last[0]);
    else union.push([first, count]);
  }
  return union;
}

/** The same pfns in batches of at most `most` pfns each, runs cut where a batch is full. */
export function* batchesOf(runs: Iterable<PfnRun>, most: number): Generator<PfnRun[]> {
  if (!Number.isSafeInteger(most) || most < 1) throw new RangeError(`a batch of ${most} pfns`);
  let batch: PfnRun[] = [];
  let room = most;
  for (const [first, count] of runs) {
    for (let done = 0; done < count;) {
      const taken = Math.min(room, count - done);
      batch.push([first + done, taken]);
      done += taken;
      room -= taken;
      if (room > 0) continue;
      yield batch;
      batch = [];
      room = most;
    }
  }
  if (batch.length > 0) yield batch;
}

/** Throws RangeError unless runs are well formed (see the type) and all below nrPfns. */
export function checkRuns(runs: Iterable<PfnRun>, nrPfns: number): void {
  let next = 0;
  for (const [first, count] of runs) {
    const good = Number.isSafeInteger(first) && Number.isSafeInteger(count) && count > 0 && first >= next;
    if (!good || first + count > nrPfns) throw new RangeError(`run [${first}, ${count}] of ${nrPfns} pfns`);
    next = first + count + 1;
  }
}

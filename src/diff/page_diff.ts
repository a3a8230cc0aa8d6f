/** Which pages differ between two images of a domain. Native: native/step/image_diff.h. */
import { performance } from 'node:perf_hooks';
import { native } from '../addon.js';
import type { OperationOptions } from '../domain/progress.js';
import { startInfoPfn } from '../domain/pv_state.js';
import { startInfoBlanks, vcpuContextBytes } from '../domain/vcpu_context.js';
import type { DiffHandle } from '../handle.js';
import type { ImageReader } from '../image/reader.js';
import { classNames, type PageClass } from '../pfn/counts.js';
import { pageBytes } from '../pfn/page_words.js';
import { countOf, type PfnRun } from '../pfn/pfn_runs.js';
import { chunksPerStep, runPieces } from '../worker/pool.js';
import { steps } from '../worker/steps.js';

/** Pages that differ, and were of one class and are of the other (or of the same). */
export interface ClassDiff {
  readonly from: PageClass;
  readonly to: PageClass;
  readonly count: number;
  /** Ascending. */
  readonly runs: readonly PfnRun[];
}

interface Pair {
  readonly from: ImageReader;
  readonly to: ImageReader;
}

/** For each file of `from` the place of the same one among those of `to`; behind the last where it has none. */
function sameFiles({ from, to }: Pair): number[] {
  const places = new Map(to.files.map(({ imageId, root }, i) => [`${imageId} ${root}`, i]));
  return from.files.map(({ imageId, root }) => places.get(`${imageId} ${root}`) ?? to.files.length);
}

/** What two equal guests differ in by design does not count, as in a digest: machine frames in the p2m and in start info. */
function blankFrames(diff: DiffHandle, ofTo: boolean, { manifest, nrPfns }: ImageReader): void {
  const { domain, geometry, state, consistency } = manifest;
  if (domain.type !== 'pv') return;
  const blank = (pfn: number, first: number, end: number): void => {
    if (pfn < nrPfns) steps().diffBlank(diff, ofTo, pfn, first, end);
  };
  for (const pfn of geometry.p2mFrames) blank(pfn, 0, pageBytes);
  const first = state.vcpus.find(({ id }) => id === 0);
  if (consistency !== 'suspend-point' || first?.basic.length !== vcpuContextBytes) return;
  for (const [at, end] of startInfoBlanks) blank(startInfoPfn(state), at, end);
}

/** Looks at the content of pages whose hash no file has; at all of `from`'s first. */
async function lookAtAll(diff: DiffHandle, { from, to }: Pair, options: OperationOptions): Promise<void> {
  const startedMs = performance.now();
  const [totalPages, storedBytes] = [to.nrPfns, from.storedBytes + to.storedBytes];
  for (const [i, reader] of [from, to].entries()) {
    const ofTo = i === 1;
    const pieces = native(() => steps().diffSeek(diff, ofTo, chunksPerStep));
    const chunks = countOf(pieces);
    let done = 0;
    const work = {
      ...{ pieces, signal: options.signal },
      task: (lane: number, first: number, count: number) =>
        ({ step: 'diff-look', diff, ofTo, lane, first, count }) as const,
      done: (count: number) => {
        done += count;
        const donePages = Math.round(((i + done / chunks) / 2) * totalPages);
        const elapsedMs = performance.now() - startedMs;
        const { counts } = to;
        options.onProgress?.({ phase: 'verify', donePages, totalPages, storedBytes, counts, elapsedMs });
      },
    };
    await reader.naming(() => runPieces(work));
  }
}

/**
 * Pages that differ in type or content, by their classes in the one and in the other. What lies at one place of one file for both is the
 * same; other pages are compared by the hashes that their files hold, where the images were opened with them, else they are read. A pfn that one of them does not have is without a frame there. IMAGE_DAMAGED, IMAGE_READ_FAILED,
 * NO_MEMORY, CANCELLED.
 */
export async function diffPages(pair: Pair, options: OperationOptions = {}): Promise<ClassDiff[]> {
  const diff = native(() => steps().diffCreate(pair.from.handle, pair.to.handle, sameFiles(pair)));
  try {
    blankFrames(diff, false, pair.from);
    blankFrames(diff, true, pair.to);
    await lookAtAll(diff, pair, options);
    return native(() => steps().diffFinish(diff)).map((found) => {
      const runs: PfnRun[] = [];
      for (let i = 0; i < found.runs.length; i += 2) runs.push([found.runs[i] ?? 0, found.runs[i + 1] ?? 0]);
      const [from, to] = [classNames[found.from] as PageClass, classNames[found.to] as PageClass];
      return { from, to, count: countOf(runs), runs };
    });
  } finally {
    steps().diffRelease(diff);
  }
}

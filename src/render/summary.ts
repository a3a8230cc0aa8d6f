/** The lines a save or checkpoint ends with. */
import type { Downtime, Phases } from '../domain/operation.js';
import type { PageCounts } from '../domain/progress.js';
import { renderClasses } from './progress.js';
import { renderFacts } from './table.js';
import { formatBytes, formatDuration, formatRate, formatRatio, printable } from './units.js';

export interface Saved {
  readonly path: string;
  readonly imageId: string;
  readonly parent: string | null;
  readonly name: string;
  readonly domid: number;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly storedBytes: number;
  readonly elapsedMs: number;
  readonly phases: Phases;
  readonly downtime: Downtime | null;
}

/** `stop 1.2 ms, copy 0.4 ms`: those of the parts that took any time. */
export function renderParts(parts: Readonly<Record<string, number>>): string | undefined {
  const spent = Object.entries(parts).filter(([, ms]) => ms > 0);
  if (spent.length === 0) return undefined;
  return spent.map(([name, ms]) => `${name.replace(/Ms$/u, '')} ${formatDuration(ms)}`).join(', ');
}

/** `pause` has the name of what the guest's own part of the time is called here; what it went into is for the verbose. */
export function renderSaved(
  verb: string,
  result: Saved,
  ending: string,
  [pauseName, pauseMs]: readonly [name: string, ms: number | null],
  verbose: boolean,
): string {
  const { memoryBytes, storedBytes, elapsedMs, phases, downtime } = result;
  const sizes = `${formatBytes(memoryBytes)} of memory in ${formatBytes(storedBytes)}`;
  return renderFacts([
    [verb, `${printable(result.name)} (domain ${result.domid}), ${ending}`],
    ['file', printable(result.path)],
    ['image', result.imageId],
    ...(result.parent === null ? [] : [['needs', printable(result.parent)] as const]),
    ['size', `${sizes} (${formatRatio(memoryBytes / storedBytes)})`],
    ['pages', renderClasses(result.counts)],
    ['took', `${formatDuration(elapsedMs)}, ${formatRate(memoryBytes, elapsedMs)}`],
    ['  of that', verbose ? renderParts(phases) : undefined],
    [pauseName, pauseMs === null ? undefined : formatDuration(pauseMs)],
    ['  of that', verbose && downtime ? renderParts(downtime) : undefined],
  ]);
}

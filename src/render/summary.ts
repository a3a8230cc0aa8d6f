/** The lines a save or checkpoint ends with. */
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
}

/** `pauses` are further durations, in ms, with their names. */
export function renderSaved(
  verb: string,
  result: Saved,
  ending: string,
  pauses: readonly (readonly [name: string, ms: number])[],
): string {
  const { memoryBytes, storedBytes, elapsedMs } = result;
  const sizes = `${formatBytes(memoryBytes)} of memory in ${formatBytes(storedBytes)}`;
  return renderFacts([
    [verb, `${printable(result.name)} (domain ${result.domid}), ${ending}`],
    ['file', printable(result.path)],
    ['image', result.imageId],
    ...(result.parent === null ? [] : [['needs', printable(result.parent)] as const]),
    ['size', `${sizes} (${formatRatio(memoryBytes / storedBytes)})`],
    ['pages', renderClasses(result.counts)],
    ['took', `${formatDuration(elapsedMs)}, ${formatRate(memoryBytes, elapsedMs)}`],
    ...pauses.map(([name, ms]) => [name, formatDuration(ms)] as const),
  ]);
}

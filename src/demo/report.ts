/** The table the demo ends with: what was measured, beside what this machine allows. */
import type { CheckpointResult } from '../checkpoint/checkpoint.js';
import { renderTable } from '../render/table.js';
import { formatBytes, formatDuration, formatRate } from '../render/units.js';
import type { RestoreResult } from '../restore/restore.js';
import type { SaveResult } from '../save/save.js';
import type { Limits } from './limits.js';

export interface DemoRow {
  readonly what: string;
  readonly measured: string;
  /** What the same machine allows, measured in the same run. */
  readonly limit: string;
}

export interface Figures {
  readonly checkpoints: readonly Pick<CheckpointResult, 'pauseMs'>[];
  readonly saved: Pick<SaveResult, 'memoryBytes' | 'storedBytes' | 'elapsedMs'>;
  readonly restored: Pick<RestoreResult, 'memoryBytes' | 'elapsedMs'>;
  readonly limits: Limits;
}

/** The smallest value that at least `percent` of them do not exceed. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((sorted.length * percent) / 100) - 1)] ?? NaN;
}

const gbps = (rate: number): string => `${rate.toFixed(2)} GB/s`;

/** One row a figure; the pause is compared with copying the whole memory, which it would be without copy-on-write. */
export function reportRows({ checkpoints, saved, restored, limits }: Figures): DemoRow[] {
  const pauses = checkpoints.map(({ pauseMs }) => pauseMs);
  const pause = (percent: number): string =>
    pauses.length === 0 ? '-' : formatDuration(percentile(pauses, percent));
  const copyMs = saved.memoryBytes / limits.memcpyGbps / 1e6;
  const copyAll = `${formatDuration(copyMs)}: one memcpy of all its memory`;
  const { cores } = limits;
  return [
    { what: 'light checkpoint pause, p50', measured: pause(50), limit: copyAll },
    { what: `light checkpoint pause, p99 of ${pauses.length}`, measured: pause(99), limit: copyAll },
    {
      what: 'save',
      measured: formatRate(saved.memoryBytes, saved.elapsedMs),
      limit: `${gbps(limits.compressGbps)}: LZ4 of the same memory on ${cores} cores`,
    },
    {
      what: 'restore',
      measured: formatRate(restored.memoryBytes, restored.elapsedMs),
      limit: `${gbps(limits.decompressGbps)}: LZ4 back on ${cores} cores; memcpy ${gbps(limits.memcpyGbps)}`,
    },
    {
      what: 'image size',
      measured: formatBytes(saved.storedBytes),
      limit: `${formatBytes(saved.memoryBytes)}: the memory`,
    },
  ];
}

export function renderReport(rows: readonly DemoRow[]): string {
  const cells = rows.map(({ what, measured, limit }) => [what, measured, limit]);
  return renderTable(['', 'measured', 'beside, on this machine'], cells);
}

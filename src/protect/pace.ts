/** When the next point is taken: a pure function of what the last ones took. */

/** Of the time at most this part goes into taking points, so that the guest, and the disk, have the rest. */
const mostBusy = 0.8;

/**
 * Milliseconds to wait after a point that took `tookMs`, begun `everyMs` apart where that can be kept up: one that takes longer
 * than its share stretches the interval.
 */
export function restMs(everyMs: number, tookMs: number): number {
  const intervalMs = Math.max(everyMs, tookMs / mostBusy);
  return Math.max(0, intervalMs - tookMs);
}

/** Milliseconds to wait after `failures` in a row: longer each time, a minute at most, never less than the interval. */
export function retryMs(everyMs: number, failures: number): number {
  return Math.max(everyMs, Math.min(60_000, 1000 * 2 ** Math.min(failures - 1, 6)));
}

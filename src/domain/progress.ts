/** What a long operation reports while it works, and the counts it ends with. */
import type { PageCounts } from '../pfn/counts.js';

export type { PageCounts } from '../pfn/counts.js';

export type Phase = 'verify' | 'pages' | 'commit';

export interface Progress {
  readonly phase: Phase;
  readonly donePages: number;
  readonly totalPages: number;
  readonly storedBytes: number;
  readonly counts: Readonly<PageCounts>;
  readonly elapsedMs: number;
}

export interface OperationOptions {
  readonly onProgress?: (progress: Progress) => void;
  /** Aborting gives the guest back as it was and throws CANCELLED. */
  readonly signal?: AbortSignal;
}

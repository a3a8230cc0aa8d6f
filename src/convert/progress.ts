/** What a conversion reports while it works. */
import type { PageCounts } from '../pfn/counts.js';

export interface ConvertProgress {
  /** `verify`: checking what is read (or was written); `pages`: copying; `commit`: making the file durable. */
  readonly phase: 'verify' | 'pages' | 'commit';
  readonly donePages: number;
  /** While an HVM guest's file is checked, the pages seen so far. */
  readonly totalPages: number;
  /** Bytes of the new file so far. */
  readonly storedBytes: number;
  readonly counts: Readonly<PageCounts>;
  readonly elapsedMs: number;
}

export interface ConvertOptions {
  readonly onProgress?: (progress: ConvertProgress) => void;
  /** Aborting throws CANCELLED; nothing is written. */
  readonly signal?: AbortSignal;
  /** Bypass the page cache where the file system can. Default true. */
  readonly directIo?: boolean;
}

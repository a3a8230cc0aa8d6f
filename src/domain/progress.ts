/** What a long operation reports while it works, and the counts it ends with. */

/** Pages by class; they add up to the domain's pfns or the image is not committed. */
export interface PageCounts {
  data: number;
  zero: number;
  table: number;
  noFrame: number;
  broken: number;
  alloc: number;
  sameAsParent: number;
}

export type Phase = 'verify' | 'suspend' | 'pages' | 'state' | 'commit' | 'build' | 'resume';

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

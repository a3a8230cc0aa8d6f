/** What the time of an operation went into: phases of the whole, and parts of the pause of the guest. */
import { performance } from 'node:perf_hooks';

/**
 * Cuts time into named parts: what has passed since the last cut belongs to the part that is named. So the parts add up to
 * the whole, whatever the order and however often one is named.
 */
export class Laps<Part extends string> {
  readonly #ms: Record<Part, number>;
  readonly #now: () => number;
  readonly #startMs: number;
  #cutMs: number;

  constructor(parts: readonly Part[], now: () => number = () => performance.now()) {
    this.#ms = Object.fromEntries(parts.map((part) => [part, 0])) as Record<Part, number>;
    this.#now = now;
    this.#startMs = this.#cutMs = now();
  }

  done(part: Part): void {
    const nowMs = this.#now();
    this.#ms[part] += nowMs - this.#cutMs;
    this.#cutMs = nowMs;
  }

  /** Cuts when the answer comes. */
  async until<T>(part: Part, asked: Promise<T>): Promise<T> {
    const answer = await asked;
    this.done(part);
    return answer;
  }

  /** Of what has passed since the last cut so much, as another clock has it. */
  partly(part: Part, ms: number): void {
    const taken = Math.min(Math.max(ms, 0), this.#now() - this.#cutMs);
    this.#ms[part] += taken;
    this.#cutMs += taken;
  }

  /** From the start to the last cut. */
  get totalMs(): number {
    return this.#cutMs - this.#startMs;
  }

  /** `stop` as `stopMs`. */
  parts(): Record<`${Part}Ms`, number> {
    const named = Object.entries<number>(this.#ms).map(([part, ms]) => [`${part}Ms`, ms]);
    return Object.fromEntries(named) as Record<`${Part}Ms`, number>;
  }
}

/**
 * `prepare`: until the guest is touched; `live`: passes over its memory while it runs; `pause`: bringing it to stand, and
 * all of a pause; `write`: pages while it stands, or after; `commit`: until the image has its name; `settle`: what is left.
 */
export const operationPhases = ['prepare', 'live', 'pause', 'write', 'commit', 'settle'] as const;

export type Phases = Record<`${(typeof operationPhases)[number]}Ms`, number>;

/** An operation from when it was asked for. */
export class Operation extends Laps<(typeof operationPhases)[number]> {
  constructor(now?: () => number) {
    super(operationPhases, now);
  }
}

/**
 * `stop`: until no vCPU runs; `find`: what changed; `copy`: copying (or, if it is too much, writing) it; `snapshot`: the
 * host's own, where it copies on write; `state`: registers; `resume`: letting it go.
 */
export const pauseParts = ['stop', 'find', 'copy', 'snapshot', 'state', 'resume'] as const;

export type Downtime = Record<`${(typeof pauseParts)[number]}Ms`, number>;

/** A pause from when the guest was asked to stop. */
export class Pause extends Laps<(typeof pauseParts)[number]> {
  constructor(now?: () => number) {
    super(pauseParts, now);
  }
}

export const totalMs = (downtime: Downtime): number =>
  Object.values(downtime).reduce((sum, ms) => sum + ms, 0);

/** Of a pause that the host made and measured by itself. */
export function snapshotDowntime(pauseMs: number): Downtime {
  return { stopMs: 0, findMs: 0, copyMs: 0, snapshotMs: pauseMs, stateMs: 0, resumeMs: 0 };
}

/** A domain that is taken to points of its store one after the other, and then home: to where it was, or to one of them. */
import type { OperationOptions } from '../domain/progress.js';
import type { DomainInfo } from '../domain/state.js';
import { asDormouseError, changed, DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import { rollbackToPoint } from '../rollback/to_point.js';
import type { DomainPoints } from '../store/domain_points.js';
import { shellWord } from '../trust/shell_word.js';

/** Runs a rollback to the point, with what shows its progress. */
export type Rolling = <T>(
  point: string,
  roll: (options: Pick<OperationOptions, 'onProgress'>) => Promise<T>,
) => Promise<T>;

export interface ExcursionOptions {
  /** Keep the domain as it is before as a point; without it nothing leads back there. */
  readonly safety: boolean;
  readonly rolling?: Rolling;
  readonly notice?: (text: string) => void;
}

/** A domain and its points in the store in `folder`. */
export interface Place {
  readonly host: Host;
  readonly info: DomainInfo;
  readonly folder: string;
  readonly points: DomainPoints;
}

export class Excursion {
  #safetyPoint: string | null = null;
  /** It is, or was, at a point. */
  #away = false;

  private constructor(
    private readonly place: Place,
    private readonly options: ExcursionOptions,
  ) {}

  /** The domain stands from here on, unless it is let run. LOCKED while another tool works on it. */
  static async begin(place: Place, options: ExcursionOptions): Promise<Excursion> {
    const { host, info } = place;
    const lease = await host.acquire(info.domid, 'rollback');
    try {
      await host.pause(info.domid);
    } finally {
      await lease.release();
    }
    return new Excursion(place, options);
  }

  /** The domain as it was before, once it is kept. */
  get safetyPoint(): string | null {
    return this.#safetyPoint;
  }

  /** Before the first time it is kept as it is, as a point that nobody forgets meanwhile. Errors: those of `rollbackToPoint`. */
  async #goTo(point: string, signal?: AbortSignal): Promise<void> {
    const { host, info, folder, points } = this.place;
    const { safety, rolling, notice } = this.options;
    const kept = async (safetyPoint: string): Promise<void> => {
      await points.pin(safetyPoint);
      this.#safetyPoint = safetyPoint;
    };
    const chosen = {
      ...{ safety: safety && this.#safetyPoint === null, kept },
      ...(signal && { signal }),
      ...(notice && { notice }),
    };
    // Of what comes with the progress no signal is taken: the way home is not cancelled.
    const roll = ({ onProgress }: Pick<OperationOptions, 'onProgress'>): Promise<unknown> => {
      const shown = onProgress ? { ...chosen, onProgress } : chosen;
      return rollbackToPoint(host, String(info.domid), folder, point, shown);
    };
    await (rolling ? rolling(point, roll) : roll({}));
    this.#away = true;
  }

  /** Takes it to the point and runs `body` there, with the domain running or not. It stands again then. DOMAIN_NOT_FOUND if it is gone. */
  async visit<T>(
    point: string,
    { runs, signal }: { readonly runs: boolean; readonly signal: AbortSignal | undefined },
    body: () => Promise<T>,
  ): Promise<T> {
    const { host, info } = this.place;
    await this.#goTo(point, signal);
    if (runs) await host.unpause(info.domid);
    const result = await body();
    await this.#requireThere();
    await host.pause(info.domid);
    return result;
  }

  /** DOMAIN_NOT_FOUND also if the id is another domain's now. */
  async #requireThere(): Promise<DomainInfo> {
    const { host, info } = this.place;
    const now = await host.info(info.domid);
    if (now.uuid === info.uuid) return now;
    throw new DormouseError('DOMAIN_NOT_FOUND', `domain ${info.domid} is not ${info.name} any more`);
  }

  /** To a point, or where it was; it goes on as paused as it was then. */
  async end(point: string | null): Promise<void> {
    const to = point ?? this.#safetyPoint;
    if (to !== null) await this.#goTo(to);
    await this.#letGo();
  }

  /** Its safety point is one like any other from then on. */
  async #letGo(): Promise<void> {
    const { host, info, points } = this.place;
    if (!info.paused) await host.unpause(info.domid);
    const safetyPoint = this.#safetyPoint;
    if (safetyPoint === null) return;
    await points.unpin(safetyPoint).catch((thrown: unknown) => {
      this.options.notice?.(`point ${safetyPoint} stays pinned: ${asDormouseError(thrown).message}`);
    });
  }

  /** After an error: the same as `end`, or without a safety point to `otherwise`. The error, with where the domain is now. */
  async endAfter(error: DormouseError, otherwise: string): Promise<DormouseError> {
    if (error.code === 'HOST_DIED') return error;
    const { host, info } = this.place;
    const to = this.#safetyPoint ?? otherwise;
    try {
      const { rewinding = false } = await this.#requireThere();
      // One that is half rewound stands already.
      if (!rewinding) await host.pause(info.domid);
      const goes = this.#away || rewinding;
      if (goes) await this.#goTo(to);
      await this.#letGo();
      const where = to === this.#safetyPoint ? 'is back where it was' : `is at point ${to}`;
      return changed(error, {
        message: goes ? `${error.message}; ${info.name} ${where}` : error.message,
        guest: info.paused || info.shutdown !== null ? 'untouched' : 'resumed',
      });
    } catch (thrown) {
      return this.#lost(error, asDormouseError(thrown), to);
    }
  }

  /** It could not be brought home. */
  #lost(error: DormouseError, late: DormouseError, to: string): DormouseError {
    const { name } = this.place.info;
    const kept = to === this.#safetyPoint ? 'As it was before it is' : 'Of the good point it is';
    if (late.code === 'HOST_DIED') return late;
    if (late.code === 'DOMAIN_NOT_FOUND')
      return changed(late, {
        message: `${name} is gone: COMMAND ended it, or somebody else did`,
        cause: error.code === late.code ? error.cause : error,
        guest: 'gone',
        advice: `${kept} kept as point ${to}: \`dormouse restore\` makes a new domain of its image, whose path \`dormouse points --json\` has.`,
      });
    const [domain, folder] = [name, this.place.folder].map(shellWord);
    const back = `dormouse rollback ${domain} ${to} --store ${folder} --no-safety`;
    return changed(late, {
      message: `${error.message}; then ${name} could not be brought back: ${late.message}`,
      cause: error,
      guest: 'paused',
      advice: `${kept} kept as point ${to}: \`${back}\`, then \`dormouse unpause ${domain}\`.`,
    });
  }
}

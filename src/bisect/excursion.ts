/** A domain that is taken to points of its store one after the other, and then home: to where it was, or to one of them. */
import type { OperationOptions } from '../domain/progress.js';
import type { DiskWay } from '../disks/way.js';
import type { DomainInfo } from '../domain/state.js';
import { asDormouseError, changed, DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import { requireWayBack } from '../rollback/rollback.js';
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
  /** Disks that the domain writes to stay as they are now, on hosts that have such. */
  readonly keepDisks?: boolean;
  /** As of `rollbackToPoint`. */
  readonly disks?: DiskWay;
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

  constructor(
    private readonly place: Place,
    private readonly options: ExcursionOptions,
  ) {}

  /** The domain as it was before, once it is kept. */
  get safetyPoint(): string | null {
    return this.#safetyPoint;
  }

  /**
   * The first time it is kept as it is, as a point that leads back and that nobody forgets meanwhile. It stands when it is there. Errors: those
   * of `rollbackToPoint`.
   */
  async #goTo(point: string, signal?: AbortSignal): Promise<void> {
    const { host, info, folder } = this.place;
    const { safety, keepDisks = false, disks, rolling, notice } = this.options;
    const chosen = {
      ...{ safety: safety && this.#safetyPoint === null, keepDisks, leavePaused: true },
      kept: (safetyPoint: string, path: string) => this.#keep(safetyPoint, path),
      touched: () => (this.#away = true),
      ...(signal && { signal }),
      ...(notice && { notice }),
      ...(disks && { disks }),
    };
    // Of what comes with the progress no signal is taken: the way home is not cancelled.
    const roll = ({ onProgress }: Pick<OperationOptions, 'onProgress'>): Promise<unknown> => {
      const shown = onProgress ? { ...chosen, onProgress } : chosen;
      return rollbackToPoint(host, String(info.domid), folder, point, shown);
    };
    await (rolling ? rolling(point, roll) : roll({}));
  }

  async #keep(safetyPoint: string, path: string): Promise<void> {
    const { host, info, points } = this.place;
    const { disks } = await points.find(safetyPoint);
    const keepDisks = this.options.keepDisks === true || disks.kind !== 'none';
    await requireWayBack(host, info, path, { keepDisks }).catch((thrown: unknown) => {
      const { code, message } = asDormouseError(thrown);
      if (code !== 'HOST_LACKS' && !code.startsWith('IMAGE_')) throw thrown;
      throw new DormouseError(
        'DOMAIN_WRONG_STATE',
        `nothing would lead back to where ${info.name} is now: ${message}`,
        {
          cause: thrown,
          advice: 'Begin while the domain runs, or again; or say `--no-safety` and where to leave it.',
        },
      );
    });
    await points.pin(safetyPoint);
    this.#safetyPoint = safetyPoint;
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
    const { paused } = await this.#requireThere();
    if (!paused) await host.pause(info.domid);
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
    if (to === null) return;
    await this.#goTo(to);
    await this.#letGo();
  }

  /** As paused as it was. */
  async #letGo(): Promise<void> {
    const { host, info } = this.place;
    const { paused } = await host.info(info.domid);
    if (paused !== info.paused) await (paused ? host.unpause(info.domid) : host.pause(info.domid));
    await this.#unpin();
  }

  /** Its safety point is one like any other from then on. */
  async #unpin(): Promise<void> {
    const safetyPoint = this.#safetyPoint;
    if (safetyPoint === null) return;
    await this.place.points.unpin(safetyPoint).catch((thrown: unknown) => {
      this.options.notice?.(`point ${safetyPoint} stays pinned: ${asDormouseError(thrown).message}`);
    });
  }

  /** After an error: the same as `end`, or without a safety point to `otherwise`. The error, with where the domain is now. */
  async endAfter(error: DormouseError, otherwise: string): Promise<DormouseError> {
    if (error.code === 'HOST_DIED') return error;
    const { host, info } = this.place;
    const to = this.#safetyPoint ?? otherwise;
    try {
      const { rewinding = false, paused } = await this.#requireThere();
      if (!this.#away && !rewinding) {
        await this.#unpin();
        return error;
      }
      if (!paused) await host.pause(info.domid);
      await this.#goTo(to);
      await this.#letGo();
      const where = to === this.#safetyPoint ? 'is back where it was' : `is at point ${to}`;
      return changed(error, {
        message: `${error.message}; ${info.name} ${where}`,
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
    const [domain, folder] = [name, this.place.folder].map(shellWord);
    const there = `${domain} ${to} --store ${folder}`;
    if (late.code === 'DOMAIN_NOT_FOUND')
      return changed(late, {
        message: `${name} is gone: COMMAND ended it, or somebody else did`,
        cause: error.code === late.code ? error.cause : error,
        guest: 'gone',
        advice: `${kept} kept as point ${to}: \`dormouse restore ${there}\` makes a new domain of it.`,
      });
    const disks = this.options.keepDisks === true ? ' --keep-disks' : '';
    const back = `dormouse rollback ${there} --no-safety${disks}`;
    return changed(late, {
      message: `${error.message}; then ${name} could not be brought back: ${late.message}`,
      cause: error,
      guest: 'paused',
      advice: `${kept} kept as point ${to}: \`${back}\`, then \`dormouse unpause ${domain}\`.`,
    });
  }
}

/** `bisect`: finds the first point at which a COMMAND fails, by taking the domain back to points and running it there. */
import { performance } from 'node:perf_hooks';
import { requireWhole } from '../capture/stand_still.js';
import { asDormouseError, changed, DormouseError, type ErrorCode } from '../errors.js';
import type { Host } from '../host/contract.js';
import { requireRewrite, requireSafetyPossible } from '../rollback/refuse.js';
import type { DomainPoints } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';
import { PointStore } from '../store/store.js';
import { Excursion, type ExcursionOptions, type Place } from './excursion.js';
import { judge, type Judgement, requireProgram } from './judge.js';
import type { LeftAt } from './left_at.js';
import { boundsOf, nextTrial, trialsLeft, type Verdict } from './search.js';

export interface BisectOptions extends ExcursionOptions {
  /** As a user names points. */
  readonly good: string;
  readonly bad: string;
  readonly command: readonly string[];
  /** For COMMAND, beside what it is told of the point. */
  readonly env?: Readonly<Record<string, string>>;
  /** What COMMAND may take. */
  readonly timeoutMs?: number;
  /** COMMAND is not run at the two ends. */
  readonly trustEnds: boolean;
  readonly leave: LeftAt;
  /** The domain stands while COMMAND runs. */
  readonly paused: boolean;
  readonly signal?: AbortSignal;
  readonly onTrial?: (trial: Trial, left: Left) => void;
}

export interface Trial {
  readonly point: string;
  readonly verdict: Verdict;
  /** Of COMMAND; null if it took too long, or did not run. */
  readonly exitCode: number | null;
  /** Why COMMAND did not run. */
  readonly why: string | null;
  readonly elapsedMs: number;
}

type Found = Pick<Trial, 'verdict' | 'exitCode' | 'why'>;

/** Points of which one is the first bad, and how many trials that takes if none is skipped; of the search between the ends. */
export interface Left {
  readonly suspects: number;
  readonly trials: number;
}

export interface BisectResult {
  readonly domid: number;
  readonly name: string;
  readonly lastGood: string;
  /** Null where points that were skipped leave it open. */
  readonly firstBad: string | null;
  /** One of these is the first bad point. */
  readonly suspects: readonly string[];
  /** From the good point to the bad one, both among them. */
  readonly points: number;
  readonly trials: readonly Trial[];
  /** The domain as it was before; null where it was not touched, or is not kept. */
  readonly safetyPoint: string | null;
  readonly left: LeftAt;
  readonly paused: boolean;
  readonly elapsedMs: number;
}

/** Of one point alone, where the domain was not touched for it: it cannot be judged. */
const ofPoint: readonly ErrorCode[] = [
  ...(['POINT_NOT_FOUND', 'IMAGE_NOT_FOUND', 'IMAGE_DAMAGED', 'STORE_DAMAGED', 'HOST_LACKS'] as const),
  ...(['IMAGE_INCOMPATIBLE', 'IMAGE_NOT_RESTORABLE'] as const),
];

/** Ascending, from the good point to the bad one. POINT_NOT_FOUND; USAGE where one does not lead to the other. */
async function lineBetween(points: DomainPoints, typed: BisectOptions): Promise<PointRecord[]> {
  const [good, bad] = [await points.find(typed.good), await points.find(typed.bad)];
  if (good.id === bad.id) throw new DormouseError('USAGE', `${good.id} is given as good and as bad`);
  const line = await points.line(good.id, bad.id);
  if (line) return line;
  const isLater = (await points.line(bad.id, good.id)) !== null;
  throw new DormouseError(
    'USAGE',
    `what is sought is what made a good point bad: ${good.id} ` +
      (isLater ? `comes after ${bad.id}` : `did not lead to ${bad.id} (\`dormouse points --tree\`)`),
  );
}

class Bisection {
  readonly #startedMs = performance.now();
  readonly #known: (Verdict | undefined)[];
  readonly #trials: Trial[] = [];

  constructor(
    private readonly place: Place,
    private readonly excursion: Excursion,
    private readonly line: readonly PointRecord[],
    private readonly options: BisectOptions,
  ) {
    this.#known = line.map(() => undefined);
    this.#known.splice(0, 1, 'good');
    this.#known.splice(-1, 1, 'bad');
  }

  async run(): Promise<BisectResult> {
    const { excursion, options } = this;
    try {
      await this.#search();
      const { good, bad } = boundsOf(this.#known);
      const { leave } = options;
      await excursion.end(leave === 'before' ? null : this.#idAt(leave === 'good' ? good : bad));
      return this.#result();
    } catch (thrown) {
      const error = await excursion.endAfter(asDormouseError(thrown), this.#idAt(0));
      throw changed(error, { done: { trials: this.#trials } });
    }
  }

  #idAt(at: number): string {
    return this.line[at]?.id ?? '';
  }

  async #search(): Promise<void> {
    if (!this.options.trustEnds) {
      await this.#expect(0, 'good');
      await this.#expect(this.line.length - 1, 'bad');
    }
    for (let at = nextTrial(this.#known); at !== null; at = nextTrial(this.#known)) await this.#try(at);
  }

  /** USAGE if the end is not what the user says. */
  async #expect(at: number, verdict: 'good' | 'bad'): Promise<void> {
    const startedMs = performance.now();
    const judged = await this.#judge(at);
    this.#note(at, { ...judged, why: null }, startedMs);
    if (judged.verdict === verdict) return;
    const ended = judged.exitCode === null ? 'took too long' : `ended with ${judged.exitCode}`;
    throw new DormouseError('USAGE', `point ${this.#idAt(at)} is not ${verdict}: COMMAND ${ended} there`);
  }

  async #try(at: number): Promise<void> {
    const startedMs = performance.now();
    let found: Found;
    try {
      found = { ...(await this.#judge(at)), why: null };
    } catch (thrown) {
      const { code, message, guest } = asDormouseError(thrown);
      if (!ofPoint.includes(code) || guest !== 'untouched') throw thrown;
      found = { verdict: 'skip', exitCode: null, why: message };
    }
    this.#known[at] = found.verdict;
    this.#note(at, found, startedMs);
  }

  #note(at: number, found: Found, startedMs: number): void {
    const trial = { point: this.#idAt(at), ...found, elapsedMs: performance.now() - startedMs };
    this.#trials.push(trial);
    const { good, bad } = boundsOf(this.#known);
    this.options.onTrial?.(trial, { suspects: bad - good, trials: trialsLeft(this.#known) });
  }

  async #judge(at: number): Promise<Judgement> {
    const { command, timeoutMs, signal, paused } = this.options;
    const { name, domid } = this.place.info;
    const point = this.#idAt(at);
    const told = { DORMOUSE_DOMAIN: name, DORMOUSE_DOMID: String(domid), DORMOUSE_POINT: point };
    const env = { ...this.options.env, ...told };
    return await this.excursion.visit(point, { runs: !paused, signal }, () =>
      judge(command, { env, timeoutMs, signal }),
    );
  }

  #result(): BisectResult {
    const { line, options, excursion } = this;
    const { domid, name, paused } = this.place.info;
    const { good, bad } = boundsOf(this.#known);
    const suspects = line.slice(good + 1, bad + 1).map(({ id }) => id);
    const [first = null, second] = suspects;
    return {
      ...{ domid, name, paused, lastGood: this.#idAt(good), suspects },
      ...{ firstBad: second === undefined ? first : null, points: line.length, trials: this.#trials },
      ...{ safetyPoint: excursion.safetyPoint, left: options.leave },
      elapsedMs: performance.now() - this.#startedMs,
    };
  }
}

/**
 * Finds the first point at which COMMAND fails, between a good and a later bad one that it led to. The domain is taken back to one after
 * the other, runs while COMMAND runs there and stands in between. In the end, and after any error, it goes back to where it was, which is kept as
 * a point that is pinned until then; after a result to where `leave` says. If the tool dies it stays where it is. Errors: those of a
 * rollback and of a store, USAGE (points that are no ends, COMMAND that cannot be started), COMMAND_FAILED, CANCELLED.
 */
export async function bisect(
  host: Host,
  selector: string,
  folder: string,
  options: BisectOptions,
): Promise<BisectResult> {
  await requireProgram(options.command[0] ?? '');
  await requireRewrite(host);
  const info = await host.find(selector);
  requireWhole(info);
  if (options.safety) requireSafetyPossible(info);
  const points = (await PointStore.open(folder, { create: false })).points(info.uuid);
  const line = await lineBetween(points, options);
  const place = { host, info, folder, points };
  return await new Bisection(place, new Excursion(place, options), line, options).run();
}

/** Which points are kept: a pure function from what there is to what may go. */

export const retentionRules = ['last', 'secondly', 'minutely', 'hourly', 'daily', 'weekly'] as const;
export type RetentionRule = (typeof retentionRules)[number];

/** How many of each are kept; the newest point of a second, a minute ... stands for it. Points that several rules keep count for each. */
export type Retention = { readonly [Rule in RetentionRule]?: number };

export interface Kept {
  readonly id: string;
  /** Names of the rules that keep it: `last`, `hourly` ..., `pinned`. None: it may go. */
  readonly by: readonly string[];
}

export interface Candidate {
  readonly id: string;
  readonly takenAt: Date;
  readonly pinned: boolean;
}

type Period = Exclude<RetentionRule, 'last'>;

const two = (value: number): string => String(value).padStart(2, '0');
const dayOf = (at: Date): string => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
const dayMs = 86_400_000;

/** By the clock of whoever prunes, as its operator reads it; the hour that comes twice in autumn is told apart by its offset. */
const periods: Readonly<Record<Period, (at: Date) => string>> = {
  secondly: (at) => String(Math.floor(at.getTime() / 1000)),
  minutely: (at) => String(Math.floor(at.getTime() / 60_000)),
  hourly: (at) => `${dayOf(at)} ${two(at.getHours())} ${at.getTimezoneOffset()}`,
  daily: dayOf,
  // Weeks begin on Mondays.
  weekly: (at) => dayOf(new Date(at.getTime() - ((at.getDay() + 6) % 7) * dayMs)),
};

export const hasRules = (retention: Retention): boolean => Object.keys(retention).length > 0;

/** The points, newest first, each with what keeps it. Without any rule all are kept. */
export function keep(points: readonly Candidate[], retention: Retention): Kept[] {
  const newestFirst = [...points].sort((a, b) => (a.id < b.id ? 1 : -1));
  const by = new Map(newestFirst.map(({ id, pinned }) => [id, pinned ? ['pinned'] : []]));
  const mark = (id: string, rule: string): unknown => by.get(id)?.push(rule);
  if (!hasRules(retention)) for (const { id } of newestFirst) mark(id, 'all');
  for (const { id } of newestFirst.slice(0, retention.last ?? 0)) mark(id, 'last');
  for (const [rule, periodOf] of Object.entries(periods) as [Period, (at: Date) => string][]) {
    const seen = new Set<string>();
    for (const { id, takenAt } of newestFirst) {
      const period = periodOf(takenAt);
      if (seen.size >= (retention[rule] ?? 0) && !seen.has(period)) break;
      if (!seen.has(period)) mark(id, rule);
      seen.add(period);
    }
  }
  return newestFirst.map(({ id }) => ({ id, by: by.get(id) ?? [] }));
}

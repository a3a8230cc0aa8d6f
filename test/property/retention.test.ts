/** Which points are kept, by rules: against a plain restatement of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pointIdOf } from '../../src/store/point_id.js';
import { type Candidate, keep, type Retention } from '../../src/store/retention.js';

const begin = Date.parse('2026-03-01T00:00:00Z');

const candidates = fc
  .uniqueArray(fc.integer({ min: 0, max: 40 * 86_400_000 }), { maxLength: 60 })
  .chain((times) =>
    fc.array(fc.boolean(), { minLength: times.length, maxLength: times.length }).map((pins) =>
      times.map((ms, i): Candidate => {
        const at = begin + ms;
        return { id: pointIdOf(at), takenAt: new Date(at), pinned: pins[i] === true && i % 7 === 0 };
      }),
    ),
  );

const few = fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined });
const retention: fc.Arbitrary<Retention> = fc
  .record({ last: few, secondly: few, minutely: few, hourly: few, daily: few, weekly: few })
  .map((rules) => Object.fromEntries(Object.entries(rules).filter(([, n]) => n !== undefined)));

const keptIds = (points: readonly Candidate[], rules: Retention): string[] =>
  keep(points, rules)
    .filter(({ by }) => by.length > 0)
    .map(({ id }) => id);

/** Hours and days of UTC: the tests run by it. */
const cut: Readonly<Record<string, number>> = { secondly: 19, minutely: 16, hourly: 13, daily: 10 };

test('what is kept is what a plain restatement keeps', () => {
  const zone = process.env.TZ;
  process.env.TZ = 'UTC';
  try {
    fc.assert(
      fc.property(candidates, retention, (points, rules) => {
        const newest = [...points].sort((a, b) => (a.id < b.id ? 1 : -1));
        const expected = new Set(newest.filter(({ pinned }) => pinned).map(({ id }) => id));
        if (Object.keys(rules).length === 0) for (const { id } of points) expected.add(id);
        for (const { id } of newest.slice(0, rules.last ?? 0)) expected.add(id);
        for (const [rule, length] of Object.entries(cut)) {
          const firsts = new Map<string, string>();
          for (const { id, takenAt } of newest) {
            const period = takenAt.toISOString().slice(0, length);
            if (!firsts.has(period)) firsts.set(period, id);
          }
          for (const id of [...firsts.values()].slice(0, rules[rule as keyof Retention] ?? 0))
            expected.add(id);
        }
        const weeks = new Map<number, string>();
        for (const { id, takenAt } of newest) {
          // 1970 began on a Thursday.
          const week = Math.floor((takenAt.getTime() / 86_400_000 + 3) / 7);
          if (!weeks.has(week)) weeks.set(week, id);
        }
        for (const id of [...weeks.values()].slice(0, rules.weekly ?? 0)) expected.add(id);
        assert.deepEqual(keptIds(points, rules).sort(), [...expected].sort());
      }),
    );
  } finally {
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
  }
});

test('pruning twice is pruning once, and pruning on the way loses nothing that is kept at the end', () => {
  fc.assert(
    fc.property(candidates, retention, fc.nat(60), (points, rules, early) => {
      const kept = keptIds(points, rules);
      const left = points.filter(({ id }) => kept.includes(id));
      assert.deepEqual(keptIds(left, rules), kept);
      const sorted = [...points].sort((a, b) => (a.id < b.id ? -1 : 1));
      const [before, after] = [sorted.slice(0, early), sorted.slice(early)];
      const keptBefore = keptIds(before, rules);
      const onTheWay = [...before.filter(({ id }) => keptBefore.includes(id)), ...after];
      assert.deepEqual(keptIds(onTheWay, rules), kept);
    }),
  );
});

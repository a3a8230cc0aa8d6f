/** Which point is tried next: by a table, and by random lines against a scan of all of their points. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { boundsOf, nextTrial, trialsLeft, type Verdict } from '../../src/bisect/search.js';

/** `g`, `b` and `s` are known, `.` is not. */
const known = (line: string): (Verdict | undefined)[] =>
  Array.from(line, (letter) => ({ g: 'good' as const, b: 'bad' as const, s: 'skip' as const })[letter]);

const table: readonly (readonly [line: string, next: number | null, left: number])[] = [
  ['gb', null, 0],
  ['g.b', 1, 1],
  ['g..b', 1, 2],
  ['g...b', 2, 2],
  ['g.......b', 4, 3],
  ['g...b...b', 2, 2],
  ['g...g...b', 6, 2],
  ['g.g.b.b', 3, 1],
  ['gsb', null, 1],
  ['g.sb', 1, 2],
  // The neighbour of one that was skipped, then further away, as far as there is anything further away.
  ['g...s...b', 3, 3],
  ['g..ss...b', 6, 3],
  ['g......sss......b', 4, 4],
  ['g.....ssss......b', 12, 4],
  ['g.sss.b', 1, 3],
  ['gsssssb', null, 3],
  ['gs...s.b', 6, 3],
  ['gs...ssb', 3, 3],
  // What was skipped beyond the two does not count.
  ['gssg...bssb', 5, 2],
];

test('the next one is the nearest to the middle, away from those that were skipped', () => {
  for (const [line, next, left] of table) {
    assert.equal(nextTrial(known(line)), next, line);
    assert.equal(trialsLeft(known(line)), left, line);
  }
});

interface Line {
  readonly length: number;
  readonly bad: number;
  readonly skipped: ReadonlySet<number>;
}

/** Lines whose ends can be judged; skipped points come alone and in rows. */
const lines: fc.Arbitrary<Line> = fc.integer({ min: 2, max: 300 }).chain((length) =>
  fc
    .record({
      bad: fc.integer({ min: 1, max: length - 1 }),
      rows: fc.array(
        fc.record({
          first: fc.integer({ min: 1, max: length }),
          count: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 60 })),
        }),
        { maxLength: 5 },
      ),
    })
    .map(({ bad, rows }) => {
      const all = rows.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
      return { length, bad, skipped: new Set(all.filter((at) => at < length - 1)) };
    }),
);

function search({ length, bad, skipped }: Line): { known: (Verdict | undefined)[]; tried: number[] } {
  const found = known(`g${'.'.repeat(length - 2)}b`);
  const tried: number[] = [];
  for (let at = nextTrial(found); at !== null; at = nextTrial(found)) {
    tried.push(at);
    assert.ok(tried.length < length, 'it does not end');
    found[at] = skipped.has(at) ? 'skip' : at < bad ? 'good' : 'bad';
  }
  return { known: found, tried };
}

/** By looking at every point. */
function scan({ length, bad, skipped }: Line): { good: number; bad: number } {
  const judged = Array.from({ length }, (_, at) => at).filter((at) => !skipped.has(at));
  const good = judged.filter((at) => at < bad).at(-1) ?? 0;
  return { good, bad: judged.find((at) => at >= bad) ?? length - 1 };
}

test('what is found is what a scan of all points finds', () => {
  fc.assert(
    fc.property(lines, (line) => {
      const { known, tried } = search(line);
      assert.deepEqual(boundsOf(known), scan(line));
      assert.equal(new Set(tried).size, tried.length, 'one was tried twice');
      const skips = tried.filter((at) => line.skipped.has(at)).length;
      if (line.skipped.size === 0) assert.ok(tried.length <= Math.ceil(Math.log2(line.length - 1)));
      // Each that is skipped costs little more than itself, unless it is one of those that leave it open.
      const { good, bad } = boundsOf(known);
      const between = bad - good - 1;
      const most = 2 * Math.log2(line.length) + 8 + 3 * Math.log2(line.length) * Math.min(skips, 5);
      assert.ok(tried.length - between <= most, `${tried.length} of ${line.length}, ${between} between`);
    }),
    { numRuns: 2000 },
  );
});

test('a row of points that cannot be judged is left behind, wherever it is', () => {
  const length = 1000;
  for (const [bad, first, count] of [
    [100, 400, 300],
    [900, 400, 300],
    [499, 500, 400],
    [30, 40, 900],
  ] as const) {
    const skipped = new Set(Array.from({ length: count }, (_, i) => first + i));
    const { known, tried } = search({ length, bad, skipped });
    assert.deepEqual(boundsOf(known), scan({ length, bad, skipped }));
    assert.ok(tried.length <= 30, `${tried.length} trials for ${bad} beside ${first} to ${first + count}`);
  }
});

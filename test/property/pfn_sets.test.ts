import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasBody, isPinned, pageType, pageTypeName, tableLevel } from '../../src/pfn/page_type.js';
import {
  batchesOf,
  checkRuns,
  countOf,
  pfnsOf,
  runsOf,
  unionOf,
  type PfnRun,
} from '../../src/pfn/pfn_runs.js';

const pfnSet = fc
  .uniqueArray(fc.nat({ max: 400 }), { maxLength: 300 })
  .map((pfns) => pfns.sort((a, b) => a - b));
const anyRuns = fc.array(fc.tuple(fc.nat({ max: 300 }), fc.nat({ max: 40 })));

test('runs hold exactly the pfns they were made of, and are well formed', () => {
  fc.assert(
    fc.property(pfnSet, (pfns) => {
      const runs = runsOf(pfns);
      assert.deepEqual([...pfnsOf(runs)], pfns);
      assert.equal(countOf(runs), pfns.length);
      checkRuns(runs, (pfns.at(-1) ?? -1) + 1);
      if (pfns.length > 0) assert.throws(() => checkRuns(runs, pfns.at(-1) ?? 0), RangeError);
    }),
  );
});

test('the union holds each pfn of any run once, in well-formed runs', () => {
  fc.assert(
    fc.property(anyRuns, (runs) => {
      const union = unionOf(runs);
      const want = [...new Set(pfnsOf(runs))].sort((a, b) => a - b);
      assert.deepEqual([...pfnsOf(union)], want);
      assert.deepEqual(union, runsOf(want));
      checkRuns(union, 341);
    }),
  );
});

test('batches keep order and are full but for the last', () => {
  fc.assert(
    fc.property(pfnSet, fc.integer({ min: 1, max: 64 }), (pfns, most) => {
      const batches = [...batchesOf(runsOf(pfns), most)];
      assert.deepEqual(
        batches.flatMap((batch) => [...pfnsOf(batch)]),
        pfns,
      );
      for (const [i, batch] of batches.entries()) {
        const count = countOf(batch);
        if (i < batches.length - 1) assert.equal(count, most);
        else assert.ok(count >= 1 && count <= most);
      }
    }),
  );
});

test('what is no sorted set of pfns is refused', () => {
  for (const pfns of [[2, 1], [1, 1], [-1], [0.5], [2 ** 53]])
    assert.throws(() => runsOf(pfns), RangeError, String(pfns));
  const bad: PfnRun[][] = [
    [[0, 0]],
    [
      [0, 2],
      [1, 1],
    ],
    [
      [0, 2],
      [2, 1],
    ],
    [[-1, 2]],
    [[9, 2]],
    [[0, NaN]],
  ];
  for (const runs of bad) assert.throws(() => checkRuns(runs, 10), RangeError, JSON.stringify(runs));
  assert.throws(() => [...batchesOf([[0, 1]], 0)], RangeError);
});

test('page types are what Xen says of them', () => {
  const names = Array.from({ length: 16 }, (_, type) => pageTypeName(type));
  assert.deepEqual(names.slice(0, 5), ['NOTAB', 'L1TAB', 'L2TAB', 'L3TAB', 'L4TAB']);
  assert.deepEqual(names.slice(9, 16), [
    'L1TAB PINNED',
    'L2TAB PINNED',
    'L3TAB PINNED',
    'L4TAB PINNED',
    'BROKEN',
    'XALLOC',
    'XTAB',
  ]);
  const all = Array.from({ length: 16 }, (_, type) => type);
  assert.deepEqual(
    all.filter((type) => tableLevel(type) > 0),
    [1, 2, 3, 4, 9, 10, 11, 12],
  );
  assert.deepEqual(all.filter(isPinned), [9, 10, 11, 12]);
  assert.deepEqual(
    all.filter((type) => !hasBody(type)),
    [pageType.broken, pageType.xalloc, pageType.xtab],
  );
});

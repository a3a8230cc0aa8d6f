/** How the time of an operation is told in parts, by a clock that is set by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Laps, Operation, Pause, snapshotDowntime } from '../../src/domain/operation.js';
import { renderParts } from '../../src/render/summary.js';

type Part = 'a' | 'b' | 'c';
/** What passes, and what it is then said to be: by our clock, or so much of it by another. */
type Cut = readonly [passesMs: number, part: Part, ofIt?: number];

const cases: readonly (readonly [what: string, cuts: readonly Cut[], parts: Record<string, number>])[] = [
  ['nothing', [], { aMs: 0, bMs: 0, cMs: 0 }],
  [
    'one after the other',
    [
      [5, 'a'],
      [7, 'b'],
      [1, 'c'],
    ],
    { aMs: 5, bMs: 7, cMs: 1 },
  ],
  [
    'by turns',
    [
      [5, 'a'],
      [7, 'b'],
      [1, 'a'],
    ],
    { aMs: 6, bMs: 7, cMs: 0 },
  ],
  [
    'in any order',
    [
      [1, 'c'],
      [2, 'a'],
    ],
    { aMs: 2, bMs: 0, cMs: 1 },
  ],
  [
    'at the same moment',
    [
      [3, 'a'],
      [0, 'b'],
    ],
    { aMs: 3, bMs: 0, cMs: 0 },
  ],
  [
    'a part of it by another clock',
    [
      [10, 'b', 4],
      [0, 'a'],
    ],
    { aMs: 6, bMs: 4, cMs: 0 },
  ],
  [
    'never more than there was',
    [
      [10, 'b', 40],
      [0, 'a'],
    ],
    { aMs: 0, bMs: 10, cMs: 0 },
  ],
  [
    'never less than nothing',
    [
      [10, 'b', -4],
      [0, 'a'],
    ],
    { aMs: 10, bMs: 0, cMs: 0 },
  ],
];

for (const [what, cuts, parts] of cases)
  test(`parts of time: ${what}`, () => {
    let nowMs = 1000;
    const laps = new Laps<Part>(['a', 'b', 'c'], () => nowMs);
    for (const [passesMs, part, ofIt] of cuts) {
      nowMs += passesMs;
      if (ofIt === undefined) laps.done(part);
      else laps.partly(part, ofIt);
    }
    assert.deepEqual(laps.parts(), parts);
    nowMs += 50; // what nobody has claimed yet is in no part
    assert.equal(
      laps.totalMs,
      Object.values(parts).reduce((sum, ms) => sum + ms, 0),
    );
  });

test('an operation and a pause have their own names, and a host that measures itself has one', () => {
  assert.deepEqual(Object.keys(new Operation().parts()), [
    ...['prepareMs', 'liveMs', 'pauseMs', 'writeMs', 'commitMs', 'settleMs'],
  ]);
  const names = Object.keys(new Pause().parts());
  assert.deepEqual(names, ['stopMs', 'findMs', 'copyMs', 'snapshotMs', 'stateMs', 'resumeMs']);
  assert.deepEqual(Object.keys(snapshotDowntime(0.5)), names);
  assert.equal(snapshotDowntime(0.5).snapshotMs, 0.5);
});

test('people read the parts that took any time', () => {
  assert.equal(renderParts({ stopMs: 1.25, findMs: 0, copyMs: 1500 }), 'stop 1.25 ms, copy 1.50 s');
  assert.equal(renderParts(snapshotDowntime(0)), undefined);
});

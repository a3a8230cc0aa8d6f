import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { DeltaBases } from '../../src/image/delta_bases.js';

const file = (sequence: number) => ({
  ...{ imageId: String(sequence), root: `root ${sequence}`, sequence, path: `/points/${sequence}` },
});

function bases(t: TestContext): DeltaBases {
  const made = new DeltaBases(1 << 20);
  t.after(() => {
    made.close();
  });
  return made;
}

/** Writes the image of that number on the one before. */
function write(on: DeltaBases, sequence: number, fullMap = sequence === 0): number[] {
  const use = on.begin(sequence === 0 ? null : file(sequence - 1));
  use.committed(file(sequence), fullMap);
  return use.setup.images.map(({ age }) => age);
}

test('deltas rest on images from the last full map on, and on none that is too old', (t) => {
  const on = bases(t);
  for (let i = 0; i < 3; i++) write(on, i);
  assert.deepEqual(write(on, 3, true), [3, 2, 1]);
  // Whoever has the full map's files need not have those before it.
  assert.deepEqual(write(on, 4), [1]);
  assert.deepEqual(write(on, 5), [2, 1]);
  for (let i = 6; i < 36; i++) write(on, i);
  assert.equal(Math.max(...write(on, 36)), 32);
});

test('an image that failed is none to rest on, nor is one of another chain', (t) => {
  const on = bases(t);
  write(on, 0);
  on.begin(file(0));
  const [after] = [on.begin(file(0)).setup];
  assert.deepEqual(
    after.images.map(({ age }) => age),
    [1],
  );
  assert.deepEqual(on.begin({ root: 'of another', sequence: 7 }).setup.images, []);
  assert.deepEqual(on.begin(file(0)).setup.images, [], 'what was of that chain is not come back to');
});

test('of the ages that deltas have, the files', (t) => {
  const on = bases(t);
  for (let i = 0; i < 4; i++) write(on, i);
  const use = on.begin(file(3));
  assert.deepEqual(
    use.files(0b101).map(({ name }) => name),
    ['1', '3'],
  );
});

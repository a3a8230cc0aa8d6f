/** What fuzzing once found stays mended, and each target takes a few thousand inputs of a fixed seed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge, keptInputs } from '../fuzz/main.js';
import { inputOf } from '../fuzz/mutate.js';
import { targets } from '../fuzz/targets.js';

for (const [name, target] of Object.entries(targets))
  test(`${name}: kept inputs, seeds and a short run`, async () => {
    const corpus = [...(await target.seeds()), ...keptInputs(name)];
    for (const input of corpus) assert.equal(await judge(target, input), null);
    for (let i = 0; i < 500; i++)
      assert.equal(await judge(target, inputOf(corpus, 1, i)), null, `input ${i}`);
  });

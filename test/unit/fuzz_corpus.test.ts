/** What fuzzing once found stays mended, and each target in TypeScript takes some hundred inputs of a fixed seed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generator, inputOf } from '../fuzz/mutate.js';
import { inputsIn, judge, placesOf } from '../fuzz/target.js';
import { targets } from '../fuzz/targets.js';

for (const [name, target] of Object.entries(targets))
  test(`${name}: kept inputs, seeds and a short run`, async () => {
    const corpus = [...(await target.seeds()), ...inputsIn(placesOf(name).kept)];
    for (const input of corpus) assert.equal(await judge(target, input), null, input.toString('base64'));
    const next = generator(1);
    const words = (target.words ?? []).map((word) => Buffer.from(word));
    for (let i = 0; i < 500; i++) {
      const input = inputOf(corpus, next, words);
      assert.equal(await judge(target, input), null, input.toString('base64'));
    }
  });

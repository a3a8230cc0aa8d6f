/** Descriptors of pages: by BigInt and by halves they are the same, and each field comes back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { classNames, classNumber, classOfType } from '../../src/pfn/counts.js';
import {
  classOf,
  classOfHalf,
  descriptor,
  descriptorHalf,
  highHalf,
  joined,
  lowHalf,
  pfnHalf,
  pfnOf,
  typeOf,
  typeOfHalf,
} from '../../src/pfn/page_words.js';

const nibble = fc.integer({ min: 0, max: 15 });
const pfns = fc.oneof(fc.integer({ min: 0, max: 2 ** 52 - 1 }), fc.constantFrom(0, 2 ** 32 - 1, 2 ** 32));

test('a descriptor is the same by halves and as a whole, and its fields come back', () => {
  fc.assert(
    fc.property(pfns, nibble, nibble, (pfn, pageClass, type) => {
      const word = descriptor(pfn, pageClass, type);
      const [low, high] = [lowHalf(pfn), descriptorHalf(pfn, pageClass, type)];
      assert.equal(BigInt(low) | (BigInt(high) << 32n), word);
      assert.deepEqual([pfnOf(word), classOf(word), typeOf(word)], [pfn, pageClass, type]);
      assert.deepEqual(
        [joined(low, pfnHalf(high)), classOfHalf(high), typeOfHalf(high)],
        [pfn, pageClass, type],
      );
      assert.equal(joined(lowHalf(pfn), highHalf(pfn)), pfn);
    }),
  );
});

test('the class of each type', () => {
  const byType = Array.from({ length: 16 }, (_, type) => classOfType(type));
  assert.deepEqual(byType.slice(0, 5), ['data', 'table', 'table', 'table', 'table']);
  assert.deepEqual(byType.slice(5, 9), ['data', 'data', 'data', 'data']);
  assert.deepEqual(byType.slice(9), ['table', 'table', 'table', 'table', 'broken', 'alloc', 'noFrame']);
  assert.deepEqual(byType.slice(0, 2).map(classNumber), [1, 3]);
  assert.equal(classNames[classNumber('sameAsParent')], 'sameAsParent');
});

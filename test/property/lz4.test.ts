import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { lz4Compress, lz4Decompress } from '../../src/codec/lz4.js';
import { DormouseError } from '../../src/errors.js';
import { Random } from './tables.js';

const bound = (bytes: number): number => bytes + Math.floor(bytes / 255) + 16;

/** Bytes between all random and all the same, by runs of random length. */
function block(random: Random, bytes: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let at = 0; at < bytes;) {
    const length = Math.min(bytes - at, 1 + random.below(400));
    if (random.chance(0.5)) data.fill(random.below(256), at, at + length);
    else for (let i = 0; i < length; i++) data[at + i] = random.below(256);
    at += length;
  }
  return data;
}

/** null where it is refused; anything but a typed refusal fails the test. */
function tried(stored: Uint8Array, exactBytes: number): Buffer | null {
  try {
    return lz4Decompress(stored, exactBytes);
  } catch (error) {
    assert.ok(error instanceof DormouseError && error.code === 'IMAGE_DAMAGED', String(error));
    return null;
  }
}

const seed = fc.integer({ min: 0, max: 0x7fffffff });

test('any block comes back as it was, whatever was compressed before it', () => {
  const sizes = fc.oneof(fc.nat({ max: 70_000 }), fc.constantFrom(0, 1, 4096, 65_535, 65_536, 65_547));
  fc.assert(
    fc.property(seed, sizes, fc.integer({ min: 1, max: 64 }), (from, bytes, acceleration) => {
      const data = block(new Random(from), bytes);
      const stored = lz4Compress(data, bound(bytes), acceleration);
      assert.ok(stored !== null);
      assert.ok(lz4Decompress(stored, bytes).equals(data));
    }),
    { numRuns: 150 },
  );
});

test('a block that does not fit is refused, and the state stays good for the next', () => {
  fc.assert(
    fc.property(seed, fc.integer({ min: 64, max: 65_536 }), (from, bytes) => {
      const data = block(new Random(from), bytes);
      const whole = lz4Compress(data, bound(bytes));
      assert.ok(whole !== null);
      // LZ4 may give up a little early, never overflow: a result always fits and always decodes.
      for (const capacity of [0, 1, whole.length >> 1, whole.length - 1, whole.length]) {
        const stored = lz4Compress(data, capacity);
        if (stored === null) continue;
        assert.ok(stored.length <= capacity);
        assert.ok(lz4Decompress(stored, bytes).equals(data));
      }
      assert.equal(lz4Compress(data, whole.length >> 3), null);
      assert.ok(lz4Decompress(lz4Compress(data, bound(bytes)) ?? Buffer.alloc(0), bytes).equals(data));
    }),
    { numRuns: 60 },
  );
});

test('random bytes do not shrink, so they do not fit their own size', () => {
  const random = new Random(5);
  const data = Buffer.from(Array.from({ length: 65_536 }, () => random.below(256)));
  assert.equal(lz4Compress(data), null);
});

test('a wrong size, a cut or an added byte is refused', () => {
  const data = block(new Random(6), 65_536);
  const stored = lz4Compress(data, bound(data.length));
  assert.ok(stored !== null);
  for (const exact of [0, 1, 65_535, 65_537, 1 << 24]) assert.equal(tried(stored, exact), null);
  for (let cut = 0; cut < stored.length; cut += 1 + (cut >> 4))
    assert.equal(tried(stored.subarray(0, cut), data.length), null, `cut at ${cut}`);
  assert.equal(tried(Buffer.concat([stored, Buffer.of(0)]), data.length), null);
  assert.equal(tried(Buffer.alloc(0), 0), null);
});

test('damaged and random input is refused or gives the exact size, and never writes further', () => {
  fc.assert(
    fc.property(seed, fc.nat({ max: 20_000 }), fc.boolean(), (from, bytes, random) => {
      const dice = new Random(from);
      const data = block(dice, bytes);
      let stored = random ? block(dice, 1 + dice.below(3000)) : lz4Compress(data, bound(bytes));
      assert.ok(stored !== null);
      stored = Buffer.from(stored);
      for (let i = 0; i < 3; i++) stored[dice.below(stored.length)] = dice.below(256);
      const back = tried(stored, bytes);
      if (back) assert.equal(back.length, bytes);
    }),
    { numRuns: 400 },
  );
});

test('sizes beyond the cap are refused before anything is allocated', () => {
  assert.throws(() => lz4Decompress(Buffer.of(0), (1 << 24) + 1), RangeError);
  assert.throws(() => lz4Decompress(Buffer.of(0), -1), RangeError);
  assert.throws(() => lz4Decompress(Buffer.of(0), 0.5), RangeError);
  assert.throws(() => lz4Compress(Buffer.alloc(8), (1 << 24) + 1), RangeError);
});

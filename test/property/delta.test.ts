import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { deltaApply, deltaCompress } from '../../src/codec/delta.js';
import { lz4Decompress } from '../../src/codec/lz4.js';
import { DormouseError } from '../../src/errors.js';
import { Random } from './tables.js';

const most = 65_536;
const bound = (bytes: number): number => bytes + Math.floor(bytes / 255) + 16;
const noise = (random: Random, bytes: number): Buffer =>
  Buffer.from(Array.from({ length: bytes }, () => random.below(256)));

/** The same pages a while later: some runs of bytes are others. */
function changed(random: Random, base: Buffer): Buffer {
  const now = Buffer.from(base);
  for (let left = base.length && random.below(40); left > 0; left--) {
    const at = random.below(base.length);
    const end = Math.min(base.length, at + 1 + random.below(64));
    for (let i = at; i < end; i++) now[i] = random.below(256);
  }
  return now;
}

const exclusiveOr = (a: Buffer, b: Buffer): Buffer => Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)));

function isRefused(stored: Uint8Array, pages: Buffer): boolean {
  const before = Buffer.from(pages);
  try {
    deltaApply(stored, pages);
    return false;
  } catch (error) {
    assert.ok(error instanceof DormouseError && error.code === 'IMAGE_DAMAGED', String(error));
    assert.ok(pages.equals(before), 'a refused delta changed the base');
    return true;
  }
}

const seed = fc.integer({ min: 0, max: 0x7fffffff });
const sizes = fc.oneof(fc.nat({ max: most }), fc.constantFrom(0, 1, 7, 8, 9, 4095, 4096, most - 1, most));

test('a delta is LZ4 of the difference, byte by byte, and makes of its base what it was made of', () => {
  fc.assert(
    fc.property(seed, sizes, (from, bytes) => {
      const random = new Random(from);
      const base = noise(random, bytes);
      const now = changed(random, base);
      const stored = deltaCompress(now, base, bound(bytes));
      assert.ok(stored !== null);
      assert.ok(lz4Decompress(stored, bytes).equals(exclusiveOr(now, base)));
      const pages = Buffer.from(base);
      deltaApply(stored, pages);
      assert.ok(pages.equals(now));
      deltaApply(stored, pages);
      assert.ok(pages.equals(base), 'twice is not at all');
    }),
    { numRuns: 150 },
  );
});

test('a few changed words cost some bytes, whatever the pages hold; other pages do not fit', () => {
  const random = new Random(3);
  const base = noise(random, most);
  const now = Buffer.from(base);
  for (let page = 0; page < 16; page++) now.writeUInt32LE(random.below(2 ** 31), page * 4096 + 400);
  const stored = deltaCompress(now, base);
  assert.ok(stored !== null && stored.length < most / 64, `${stored?.length}`);
  assert.equal(deltaCompress(noise(random, most), base), null);
  assert.equal(deltaCompress(now, base, stored.length >> 1), null);
  assert.ok(deltaCompress(now, base)?.equals(stored), 'the state is good for the next');
});

test('what is no delta of that size is refused, and the base stays as it was', () => {
  const random = new Random(4);
  const base = noise(random, 4 * 4096);
  const now = changed(random, base);
  const stored = deltaCompress(now, base, bound(base.length));
  assert.ok(stored !== null);
  for (let cut = 0; cut < stored.length; cut += 1 + (cut >> 4))
    assert.ok(isRefused(stored.subarray(0, cut), base), `cut at ${cut}`);
  assert.ok(isRefused(Buffer.concat([stored, Buffer.of(0)]), base));
  for (const size of [0, 1, 4096, 4 * 4096 - 1, 4 * 4096 + 1, most])
    assert.ok(isRefused(stored, noise(random, size)), `for ${size} bytes`);
  assert.ok(isRefused(Buffer.alloc(3 * most), base));
});

test('a damaged delta is refused or gives pages of that size, and nothing beside them is written', () => {
  fc.assert(
    fc.property(seed, fc.integer({ min: 1, max: 20_000 }), fc.boolean(), (from, bytes, random) => {
      const dice = new Random(from);
      const base = noise(dice, bytes);
      const made = random
        ? noise(dice, 1 + dice.below(2000))
        : deltaCompress(changed(dice, base), base, bound(bytes));
      assert.ok(made !== null);
      const stored = Buffer.from(made);
      for (let i = 0; i < 3; i++) stored[dice.below(stored.length)] = dice.below(256);
      const room = Buffer.concat([Buffer.alloc(64, 5), base, Buffer.alloc(64, 5)]);
      isRefused(stored, room.subarray(64, 64 + bytes));
      const beside = Buffer.concat([room.subarray(0, 64), room.subarray(64 + bytes)]);
      assert.ok(beside.equals(Buffer.alloc(128, 5)));
    }),
    { numRuns: 300 },
  );
});

test('sizes that no delta has are refused before anything is allocated', () => {
  const large = Buffer.alloc(most + 1);
  assert.throws(() => deltaCompress(large, large), RangeError);
  assert.throws(() => deltaApply(Buffer.of(0), large), RangeError);
  assert.throws(() => deltaCompress(Buffer.alloc(8), Buffer.alloc(9)), RangeError);
});

import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { hash128, isZeroPage } from '../../src/pfn/page_scan.js';
import { usableSimdLevels } from '../../src/pfn/simd.js';

test('a page is zero until any single byte of it is set', () => {
  for (const simd of usableSimdLevels()) {
    const page = Buffer.alloc(4096);
    assert.equal(isZeroPage(page, simd), true);
    for (let offset = 0; offset < page.length; offset++) {
      page[offset] = 1 << (offset % 8);
      assert.equal(isZeroPage(page, simd), false, `${simd}, byte ${offset}`);
      page[offset] = 0;
    }
    assert.equal(isZeroPage(page, simd), true);
  }
  assert.throws(() => isZeroPage(Buffer.alloc(4095)), RangeError);
});

test('a zero page need not be aligned, and its neighbours do not count', () => {
  const around = Buffer.alloc(4096 + 64, 0xff);
  for (let at = 0; at <= 64; at += 7) {
    around.fill(0xff).fill(0, at, at + 4096);
    for (const simd of usableSimdLevels())
      assert.equal(isZeroPage(around.subarray(at, at + 4096), simd), true, `${simd}, at ${at}`);
  }
});

/** xxHash's own sanity buffer: bytes of a running product of its 32-bit prime. */
function sanityBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = 2654435761n;
  for (let i = 0; i < length; i++) {
    bytes[i] = Number(state >> 56n);
    state = (state * 11400714785074694797n) & ((1n << 64n) - 1n);
  }
  return bytes;
}

// What xxHash's own sanity test expects with seed 0: length, low half, high half.
const published: readonly (readonly [number, string, string])[] = [
  [0, '6001c324468d497f', '99aa06d3014798d8'],
  [1, 'c44bdff4074eecdb', 'a6cd5e9392000f6a'],
  [6, '3e7039bdda43cfc6', '082afe0b8162d12a'],
  [12, '061a192713f69ad9', '6e3efd8fc7802b18'],
  [24, '1e7044d28b1b901d', '0ce966e4678d3761'],
  [48, 'f942219aed80f67b', 'a002ac4e5478227e'],
  [81, '5e8bafb9f95fb803', '4952f58181ab0042'],
  [222, 'f1aebd597cec6b3a', '337e09641b948717'],
  [403, 'cdeb804d65c6dea4', '1b6de21e332dd73d'],
  [512, '617e49599013cb6b', '18d2d110dcc9bca1'],
  [2048, 'dd59e2c3a5f038e0', 'f736557fd47073a5'],
  [2240, '6e73a90539cf2948', 'ccb134fbfa7ce49d'],
  [2367, 'cb37aeb9e5d361ed', 'e89c0f6ff369b427'],
  [4160, '4f323b15321e94e1', '67140711c1e3e335'],
];

test('hash128 gives the published XXH3-128 values', () => {
  for (const [length, low, high] of published)
    for (const simd of usableSimdLevels())
      assert.equal(hash128(sanityBytes(length), simd), high + low, `${simd}, ${length} bytes`);
});

test('every implementation hashes the same, at any length and alignment', () => {
  const bytes = fc.uint8Array({ maxLength: 9000, size: 'max' });
  fc.assert(
    fc.property(bytes, fc.nat({ max: 63 }), (data, shift) => {
      const moved = Buffer.alloc(data.length + 64).subarray(shift, shift + data.length);
      moved.set(data);
      const want = hash128(data, 'scalar');
      for (const simd of usableSimdLevels()) assert.equal(hash128(moved, simd), want, simd);
    }),
    { numRuns: 150 },
  );
});

test('one flipped bit anywhere in a page changes its hash', () => {
  const page = sanityBytes(4096);
  const before = hash128(page);
  for (let bit = 0; bit < 4096 * 8; bit += 13) {
    page[bit >> 3] = (page[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.notEqual(hash128(page), before, `bit ${bit}`);
    page[bit >> 3] = (page[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  }
  assert.equal(hash128(page), before);
});

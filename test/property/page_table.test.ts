import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { DormouseError } from '../../src/errors.js';
import {
  canonicalise,
  localise,
  translateTables,
  type Direction,
  type FrameMaps,
  type TableLevel,
} from '../../src/pfn/page_table.js';
import { simdLevel, usableSimdLevels } from '../../src/pfn/simd.js';
import {
  allOnes,
  entriesPerTable,
  expected,
  oddEntry,
  Random,
  randomDomain,
  randomTable,
  tableShape,
  validEntry,
} from './tables.js';
import { pageBytes } from '../../src/pfn/page_words.js';

const levels: readonly TableLevel[] = [1, 2, 3, 4];
const directions: readonly Direction[] = ['canonicalise', 'localise'];

/** Every implementation of this processor gives what the plain rules give. */
function assertAllAgree(direction: Direction, maps: FrameMaps, level: TableLevel, table: Buffer): void {
  const want = expected(direction, maps, level, table);
  for (const simd of usableSimdLevels()) {
    const got = translateTables(direction, maps, level, table, simd);
    if (got.fault === 'none') {
      assert.ok(want.fault === 'none' && 'present' in want, `${simd} found no fault, want ${want.fault}`);
      assert.equal(got.present, want.present, simd);
      assert.ok(got.pages.equals(want.pages), `${simd} translated differently`);
    } else {
      const { fault, index, entry } = got;
      assert.deepEqual({ fault, index, entry }, want, simd);
    }
  }
}

test('the chosen implementation is the last this processor runs', () => {
  assert.equal(simdLevel(), usableSimdLevels().at(-1));
});

for (const direction of directions)
  test(`${direction}: every implementation follows the rules on random tables`, () => {
    fc.assert(
      fc.property(tableShape, (shape) => {
        const random = new Random(shape.seed);
        const domain = randomDomain(random, shape.nrPfns);
        let table = randomTable(random, domain, shape);
        // A canonical table is the realistic input of localise; the raw one stays an adversarial input.
        const canonical = expected('canonicalise', domain.maps, shape.level, table);
        if (direction === 'localise' && 'pages' in canonical && random.chance(0.7)) table = canonical.pages;
        assertAllAgree(direction, domain.maps, shape.level, table);
      }),
      { numRuns: 400 },
    );
  });

test('one odd entry at each index, at each level', () => {
  const random = new Random(11);
  const domain = randomDomain(random, 200);
  for (const level of levels)
    for (let index = 0; index < entriesPerTable; index++) {
      const table = Buffer.alloc(pageBytes);
      const around = Math.max(0, index - 3);
      for (let i = around; i < Math.min(entriesPerTable, index + 4); i++)
        table.writeBigUInt64LE(validEntry(random, domain), i * 8);
      table.writeBigUInt64LE(oddEntry(random, domain), index * 8);
      for (const direction of directions) assertAllAgree(direction, domain.maps, level, table);
    }
});

test('garbage in every map entry is refused without being followed', () => {
  const table = Buffer.alloc(pageBytes);
  for (let i = 0; i < entriesPerTable; i++) table.writeBigUInt64LE((BigInt(i) << 12n) | 1n, i * 8);
  for (const garbage of [allOnes, allOnes >> 1n, 1n << 63n, 1n << 40n, 512n, 513n, allOnes - 511n]) {
    const maps = { p2m: new BigUint64Array(512).fill(garbage), m2p: new BigUint64Array(512).fill(garbage) };
    for (const level of levels)
      for (const direction of directions) assertAllAgree(direction, maps, level, table);
  }
});

test('empty maps make every present entry a fault and leave the others alone', () => {
  const maps = { p2m: new BigUint64Array(0), m2p: new BigUint64Array(0) };
  const table = Buffer.alloc(pageBytes, 0xfe);
  for (const direction of directions) {
    assertAllAgree(direction, maps, 1, table);
    table.writeBigUInt64LE(1n, 8);
    assertAllAgree(direction, maps, 1, table);
  }
});

test('localise undoes canonicalise on valid tables', () => {
  fc.assert(
    fc.property(tableShape, (shape) => {
      const random = new Random(shape.seed);
      const domain = randomDomain(random, shape.nrPfns);
      const table = randomTable(random, domain, { ...shape, odd: 0 });
      if (shape.level === 4) table.fill(0, 256 * 8, 272 * 8);
      const canonical = canonicalise(domain.maps, shape.level, table);
      assert.ok(localise(domain.maps, shape.level, canonical).equals(table));
    }),
    { numRuns: 200 },
  );
});

test("Xen's own level-4 slots are zeroed on the way out, whatever they hold", () => {
  const maps = { p2m: BigUint64Array.of(1n), m2p: BigUint64Array.of(allOnes, 0n) };
  for (const simd of usableSimdLevels()) {
    const table = Buffer.alloc(pageBytes, 0xff);
    table.fill(0, 0, 256 * 8);
    table.fill(0, 272 * 8);
    const out = translateTables('canonicalise', maps, 4, table, simd);
    assert.ok(out.fault === 'none' && out.present === 0 && out.pages.equals(Buffer.alloc(pageBytes)), simd);
    const in3 = translateTables('canonicalise', maps, 3, table, simd);
    assert.ok(in3.fault === 'superpage' && in3.index === 256, simd);
  }
});

test('several tables at once: all are translated, a fault names its table', () => {
  const random = new Random(3);
  const domain = randomDomain(random, 64);
  const tables = Buffer.alloc(3 * pageBytes);
  for (let at = 0; at < tables.length; at += 8) tables.writeBigUInt64LE(validEntry(random, domain), at);
  const good = translateTables('canonicalise', domain.maps, 1, tables);
  assert.ok(good.fault === 'none' && good.present === 3 * entriesPerTable);
  tables.writeBigUInt64LE(allOnes, 2 * pageBytes + 40);
  const bad = translateTables('canonicalise', domain.maps, 1, tables);
  assert.ok(bad.fault === 'mfn_out_of_range' && bad.page === 2 && bad.index === 5 && bad.entry === allOnes);
});

test('a Buffer that does not start at a whole entry is read all the same', () => {
  const random = new Random(4);
  const domain = randomDomain(random, 64);
  const table = randomTable(random, domain, { seed: 0, level: 1, nrPfns: 64, filled: 1, odd: 0 });
  const shifted = Buffer.alloc(pageBytes + 8).subarray(3, 3 + pageBytes);
  table.copy(shifted);
  assert.ok(canonicalise(domain.maps, 1, shifted).equals(canonicalise(domain.maps, 1, table)));
});

test('faults are typed errors that name the entry', () => {
  const maps = { p2m: BigUint64Array.of(0n), m2p: BigUint64Array.of(0n) };
  const table = Buffer.alloc(pageBytes);
  table.writeBigUInt64LE(0x5067n, 16);
  const is = (code: string, text: RegExp) => (error: unknown) =>
    error instanceof DormouseError && error.code === code && text.test(error.message);
  assert.throws(
    () => canonicalise(maps, 2, table),
    is('PAGE_TABLE_INVALID', /entry 2 of a level 2 .*0x5067.* beyond/),
  );
  assert.throws(() => localise(maps, 2, table), is('IMAGE_DAMAGED', /entry 2 .* PFN beyond/));
  assert.throws(() => canonicalise(maps, 1, table.subarray(1)), RangeError);
  assert.throws(() => canonicalise(maps, 5 as TableLevel, table), RangeError);
});

/** Random domains and page tables, and the rules of canonicalise and localise written a second time, plainly. */
import { Buffer } from 'node:buffer';
import fc from 'fast-check';
import { type Direction, type FrameMaps, type TableFault } from '../../src/pfn/page_table.js';
import { pageBytes } from '../../src/pfn/page_words.js';

export const entriesPerTable = 512;
export const allOnes = (1n << 64n) - 1n;
export const mfnMask = (1n << 52n) - 1n;
export const frameMask = ((1n << 40n) - 1n) << 12n;
const present = 1n;
const pse = 1n << 7n;

/** A small deterministic generator (splitmix64), so that one seed names a whole domain. */
export class Random {
  private state: bigint;
  constructor(seed: number) {
    this.state = BigInt(seed);
  }
  u64(): bigint {
    this.state = (this.state + 0x9e3779b97f4a7c15n) & allOnes;
    let z = this.state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & allOnes;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & allOnes;
    return z ^ (z >> 31n);
  }
  below(bound: number): number {
    return Number(this.u64() % BigInt(bound));
  }
  chance(share: number): boolean {
    return this.below(1_000_000) < share * 1_000_000;
  }
}

export interface Domain {
  readonly maps: FrameMaps;
  /** The pfns that have a frame. */
  readonly populated: readonly number[];
}

function shuffled(n: number, random: Random): number[] {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** What Xen may leave in m2p entries of frames that are not this domain's. */
function garbageM2p(random: Random, nrPfns: number): bigint {
  const kinds = [
    allOnes,
    0x5555555555555555n,
    BigInt(nrPfns),
    BigInt(random.below(nrPfns)),
    random.u64(),
    1n << 63n,
    0n,
  ];
  return kinds[random.below(kinds.length)] ?? allOnes;
}

/** A domain whose frames are shuffled over a larger machine; one pfn in eight has no frame. */
export function randomDomain(random: Random, nrPfns: number): Domain {
  const nrMfns = nrPfns + 16 + random.below(nrPfns);
  const frames = shuffled(nrMfns, random);
  const m2p = new BigUint64Array(nrMfns);
  for (let mfn = 0; mfn < nrMfns; mfn++) m2p[mfn] = garbageM2p(random, nrPfns);
  const p2m = new BigUint64Array(nrPfns);
  const populated: number[] = [];
  for (let pfn = 0; pfn < nrPfns; pfn++) {
    const mfn = frames[pfn] ?? 0;
    if (pfn > 0 && random.chance(0.125)) {
      p2m[pfn] = random.chance(0.5) ? mfnMask : allOnes;
      continue;
    }
    // The top nibble is a page type, as the host contract has it; it takes no part in the comparison.
    p2m[pfn] = BigInt(mfn) | (BigInt(random.below(16)) << 60n);
    m2p[mfn] = BigInt(pfn);
    populated.push(pfn);
  }
  return { maps: { p2m, m2p }, populated };
}

const flags = (random: Random): bigint => random.u64() & ~frameMask & ~(present | pse) & allOnes;

/** A present entry for a frame of the domain, with random flags but no PSE. */
export function validEntry(random: Random, domain: Domain): bigint {
  const pfn = domain.populated[random.below(domain.populated.length)] ?? 0;
  const mfn = (domain.maps.p2m[pfn] ?? 0n) & mfnMask;
  return (mfn << 12n) | flags(random) | present;
}

/** Something hostile, odd or plainly wrong; present or not. */
export function oddEntry(random: Random, domain: Domain): bigint {
  const nrMfns = domain.maps.m2p.length;
  const frame = (mfn: number | bigint): bigint => ((BigInt(mfn) << 12n) & frameMask) | flags(random);
  switch (random.below(7)) {
    case 0:
      return random.u64() & ~present; // not present, any garbage
    case 1:
      return validEntry(random, domain) | pse;
    case 2:
      return frame(nrMfns) | present;
    case 3:
      return frame(random.u64()) | present;
    case 4:
      return allOnes;
    case 5:
      return frame(random.below(nrMfns)) | present; // often a foreign frame
    default:
      return random.u64();
  }
}

export interface TableShape {
  readonly seed: number;
  readonly level: 1 | 2 | 3 | 4;
  readonly nrPfns: number;
  readonly filled: number;
  readonly odd: number;
}

/** Seeds and shares; the table itself follows from them. */
export const tableShape: fc.Arbitrary<TableShape> = fc.record({
  seed: fc.integer({ min: 0, max: 0x7fffffff }),
  level: fc.constantFrom(1, 2, 3, 4),
  nrPfns: fc.integer({ min: 1, max: 300 }),
  filled: fc.constantFrom(0, 0.01, 0.3, 0.9, 1),
  odd: fc.constantFrom(0, 0.002, 0.01, 0.3),
});

/** One table of 512 entries: `filled` of them valid, `odd` of them odd, the rest zero. */
export function randomTable(random: Random, domain: Domain, shape: TableShape): Buffer {
  const table = Buffer.alloc(pageBytes);
  for (let i = 0; i < entriesPerTable; i++) {
    let entry = random.chance(shape.filled) ? validEntry(random, domain) : 0n;
    if (random.chance(shape.odd)) entry = oddEntry(random, domain);
    table.writeBigUInt64LE(entry, i * 8);
  }
  return table;
}

export type Expected =
  | { readonly fault: 'none'; readonly pages: Buffer; readonly present: number }
  | { readonly fault: TableFault; readonly index: number; readonly entry: bigint };

type Frame = { fault: TableFault } | { frame: bigint };

function toPfn({ p2m, m2p }: FrameMaps, mfn: bigint): Frame {
  if (mfn >= BigInt(m2p.length)) return { fault: 'mfn_out_of_range' };
  const pfn = m2p[Number(mfn)] ?? 0n;
  if (pfn >= BigInt(p2m.length)) return { fault: 'foreign_mfn' };
  const back = (p2m[Number(pfn)] ?? 0n) & mfnMask;
  return back === mfn ? { frame: pfn } : { fault: 'foreign_mfn' };
}

function toMfn({ p2m }: FrameMaps, pfn: bigint): Frame {
  if (pfn >= BigInt(p2m.length)) return { fault: 'pfn_out_of_range' };
  const mfn = (p2m[Number(pfn)] ?? 0n) & mfnMask;
  return mfn >> 40n === 0n ? { frame: mfn } : { fault: 'pfn_no_frame' };
}

/** What one table must become, by the rules read off Xen's interface. */
export function expected(direction: Direction, maps: FrameMaps, level: number, table: Buffer): Expected {
  const pages = Buffer.from(table);
  let seen = 0;
  for (let index = 0; index < entriesPerTable; index++) {
    const entry = table.readBigUInt64LE(index * 8);
    if (level === 4 && index >= 256 && index <= 271) {
      if (direction === 'canonicalise') pages.writeBigUInt64LE(0n, index * 8);
      continue;
    }
    if ((entry & present) === 0n) continue;
    if (level >= 2 && (entry & pse) !== 0n) return { fault: 'superpage', index, entry };
    const number = (entry & frameMask) >> 12n;
    const to = direction === 'canonicalise' ? toPfn(maps, number) : toMfn(maps, number);
    if ('fault' in to) return { fault: to.fault, index, entry };
    pages.writeBigUInt64LE((entry & ~frameMask) | (to.frame << 12n), index * 8);
    seen++;
  }
  return { fault: 'none', pages, present: seen };
}

/** Finding the root of a guest's linear p2m among its L4 tables. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { findP2mRoot, type P2mRootSearch } from '../../src/domain/p2m_root.js';
import { sharedInfo as sharedInfoOffsets } from '../../src/domain/vcpu_context.js';

const linuxP2mVaddr = 0xffffc90000000000n;

/** A guest's tables as a map of pages; tables are handed out from `nextTable` up. */
class Tables {
  readonly pages = new Map<number, Buffer>();
  readonly reads = new Map<number, number>();
  constructor(private nextTable: number) {}

  add(): number {
    this.pages.set(this.nextTable, Buffer.alloc(4096));
    return this.nextTable++;
  }
  set(table: number, index: number, pfn: number, flags = 0x67n): void {
    this.page(table).writeBigUInt64LE((BigInt(pfn) << 12n) | flags | (1n << 63n), index * 8);
  }
  clear(table: number, index: number): void {
    this.page(table).fill(0, index * 8, index * 8 + 8);
  }
  /** Maps `vaddr` to `pfn`, making tables as needed. Returns the L1. */
  map(root: number, vaddr: bigint, pfn: number): number {
    let table = root;
    for (const shift of [39n, 30n, 21n]) {
      const index = Number((vaddr >> shift) & 511n);
      const entry = this.page(table).readBigUInt64LE(index * 8);
      const next = entry === 0n ? this.add() : Number((entry >> 12n) & 0xffffffffffn);
      if (entry === 0n) this.set(table, index, next);
      table = next;
    }
    this.set(table, Number((vaddr >> 12n) & 511n), pfn);
    return table;
  }
  page(pfn: number): Buffer {
    this.reads.set(pfn, (this.reads.get(pfn) ?? 0) + 1);
    const page = this.pages.get(pfn);
    assert.ok(page, `pfn ${pfn} is no table`);
    return page;
  }
}

function sharedInfo(vaddr: bigint): Buffer {
  const page = Buffer.alloc(4096);
  page.writeBigUInt64LE(vaddr, sharedInfoOffsets.p2mVaddr);
  page.writeBigUInt64LE(0xdead000n, sharedInfoOffsets.p2mCr3);
  return page;
}

function guest(
  frames: readonly number[],
  vaddr = linuxP2mVaddr,
): { tables: Tables; root: number; search: P2mRootSearch } {
  const tables = new Tables(5000);
  const user = tables.add();
  const root = tables.add();
  frames.forEach((pfn, i) => tables.map(root, vaddr + BigInt(i) * 4096n, pfn));
  const search = {
    sharedInfo: sharedInfo(vaddr),
    nrPfns: 100_000,
    p2mFrames: frames,
    l4Pfns: [user, root],
    readPage: (pfn: number) => tables.page(pfn),
  };
  return { tables, root, search };
}

const frames = (count: number) => Array.from({ length: count }, (_, i) => 50_000 + ((i * 7919) % 40_000));

test('the root that leads to the leaves is found, past one that maps nothing', () => {
  for (const count of [1, 56, 512, 513, 1500]) {
    const { root, search } = guest(frames(count));
    assert.equal(findP2mRoot(search), root, `${count} leaves`);
  }
});

test('a p2m that begins in the middle of a table, or in the lower half, is found', () => {
  for (const vaddr of [linuxP2mVaddr + 300n * 4096n, 0x7f00000ff000n, 0xffff888000000000n]) {
    const { root, search } = guest(frames(700), vaddr);
    assert.equal(findP2mRoot(search), root, vaddr.toString(16));
  }
});

test('one wrong, missing or out-of-range entry anywhere is enough to refuse a root', () => {
  const list = frames(600);
  fc.assert(
    fc.property(fc.nat(599), fc.constantFrom('wrong', 'missing', 'far'), (leaf, how) => {
      const { tables, root, search } = guest(list);
      const vaddr = linuxP2mVaddr + BigInt(leaf) * 4096n;
      const l1 = tables.map(root, vaddr, how === 'far' ? 100_000 : (list[leaf] ?? 0) ^ 1);
      if (how === 'missing') tables.clear(l1, Number((vaddr >> 12n) & 511n));
      assert.equal(findP2mRoot(search), null);
    }),
    { numRuns: 60 },
  );
});

test('a guest without a linear p2m, or with an address that cannot be one, has no root', () => {
  const { search } = guest(frames(3));
  for (const vaddr of [
    0n,
    1n,
    0x800000000000n,
    0xffff7ffffffff000n,
    0xffff800000000000n,
    0xffff87fffffff000n,
    0xfffffffffffff000n,
    0x7ffffffff000n,
  ])
    assert.equal(findP2mRoot({ ...search, sharedInfo: sharedInfo(vaddr) }), null, vaddr.toString(16));
  assert.equal(findP2mRoot({ ...search, p2mFrames: [] }), null);
  assert.equal(findP2mRoot({ ...search, sharedInfo: Buffer.alloc(100) }), null);
  assert.equal(findP2mRoot({ ...search, l4Pfns: [] }), null);
});

test('hostile tables cost bounded work: loops, and many roots that fail at the last leaf', () => {
  const loop = new Tables(5000);
  const self = loop.add();
  for (let i = 0; i < 512; ++i) loop.set(self, i, self);
  const search = guest(frames(2000)).search;
  assert.equal(findP2mRoot({ ...search, l4Pfns: [self], readPage: (pfn) => loop.page(pfn) }), null);

  const { tables, root, search: near } = guest(frames(2000));
  tables.map(root, linuxP2mVaddr + 1999n * 4096n, 7);
  const roots = Array.from({ length: 300 }, () => {
    const copy = tables.add();
    tables.page(root).copy(tables.page(copy));
    return copy;
  });
  tables.reads.clear();
  assert.equal(findP2mRoot({ ...near, l4Pfns: roots }), null);
  const reads = [...tables.reads.values()];
  assert.ok(
    reads.every((count) => count === 1),
    'a page was read twice',
  );
});

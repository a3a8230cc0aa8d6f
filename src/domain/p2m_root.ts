/**
 * Finds the page table root through which a 64-bit PV guest sees its own p2m. shared_info.arch.p2m_cr3 holds that root
 * as a machine address, which means nothing on another host and is not translated in a stream; it can be found again
 * because the walk from it must lead to the p2m leaves, which are known.
 */
import type { Buffer } from 'node:buffer';
import { sharedInfo as sharedInfoOffsets } from './vcpu_context.js';
import { pageBytes } from '../pfn/page_words.js';

const entryBytes = 8;
const leavesPerTable = 512;
/** Xen's own part of the address space: L4 slots 256 to 271. */
const xenSlots = { first: 256, last: 271 } as const;

export interface P2mRootSearch {
  /** The 4096-byte shared info page, or at least its first 3136 bytes. */
  readonly sharedInfo: Buffer;
  readonly nrPfns: number;
  /** PFNs of the p2m's leaves, in order. */
  readonly p2mFrames: readonly number[];
  /** PFNs of the guest's L4 tables, the likelier first. */
  readonly l4Pfns: readonly number[];
  /** The 4096 bytes of a page, tables in canonical form; called once a table page at most. */
  readonly readPage: (pfn: number) => Buffer;
}

/**
 * The first of `l4Pfns` from which the addresses of the p2m lead to exactly `p2mFrames`; null if none does, or the
 * guest has no linear p2m. Work is bounded by 16 look-ups a leaf and 8 a table tried, whatever the tables hold.
 */
export function findP2mRoot(search: P2mRootSearch): number | null {
  const { sharedInfo, p2mFrames, l4Pfns } = search;
  if (sharedInfo.length < sharedInfoOffsets.p2mVaddr + entryBytes || p2mFrames.length === 0) return null;
  const vaddr = sharedInfo.readBigUInt64LE(sharedInfoOffsets.p2mVaddr);
  if (!isMappable(vaddr, p2mFrames.length)) return null;
  const walk = new Walk(search, 16 * p2mFrames.length + 8 * l4Pfns.length);
  for (const root of l4Pfns) if (walk.leadsToP2m(root, vaddr)) return root;
  return null;
}

/** True if the p2m's whole range is page-aligned, canonical, on one side of the hole, and not Xen's. */
function isMappable(vaddr: bigint, leaves: number): boolean {
  const last = vaddr + BigInt(leaves) * BigInt(pageBytes) - 1n;
  const isCanonical = (address: bigint) =>
    address < 1n << 47n || (address >= 0xffff800000000000n && address < 1n << 64n);
  if (vaddr === 0n || vaddr % BigInt(pageBytes) !== 0n || !isCanonical(vaddr) || !isCanonical(last))
    return false;
  const [first, end] = [indexAt(vaddr, 4), indexAt(last, 4)];
  return first <= end && (end < xenSlots.first || first > xenSlots.last);
}

function indexAt(vaddr: bigint, level: number): number {
  return Number((vaddr >> BigInt(12 + 9 * (level - 1))) & 511n);
}

class Walk {
  readonly #tables = new Map<number, Buffer>();
  /** L3 tables found wanting: guests share them between all their roots. */
  readonly #wrong = new Set<number>();

  constructor(
    private readonly search: P2mRootSearch,
    private lookups: number,
  ) {}

  leadsToP2m(root: number, vaddr: bigint): boolean {
    const { p2mFrames } = this.search;
    for (let leaf = 0; leaf < p2mFrames.length;) {
      const at = vaddr + BigInt(leaf) * BigInt(pageBytes);
      const l3 = this.#next(root, indexAt(at, 4));
      if (l3 === null || this.#wrong.has(l3)) return false;
      const l2 = this.#next(l3, indexAt(at, 3));
      const l1 = l2 === null ? null : this.#next(l2, indexAt(at, 2));
      const matched = l1 === null ? 0 : this.#matching(l1, indexAt(at, 1), leaf);
      if (matched === 0) {
        this.#wrong.add(l3);
        return false;
      }
      leaf += matched;
    }
    return true;
  }

  /** How many leaves the entries of this L1 table from `index` on give; 0 if one of them is not as it must be. */
  #matching(l1: number, index: number, leaf: number): number {
    const count = Math.min(leavesPerTable - index, this.search.p2mFrames.length - leaf);
    for (let i = 0; i < count; ++i)
      if (this.#next(l1, index + i) !== this.search.p2mFrames[leaf + i]) return 0;
    return count;
  }

  /** The pfn a present entry holds; null if it is not present, a superpage, out of range, or the work is used up. */
  #next(table: number, index: number): number | null {
    if (--this.lookups < 0) return null;
    let page = this.#tables.get(table);
    if (page === undefined) {
      page = this.search.readPage(table);
      this.#tables.set(table, page);
    }
    const [low, high] = [page.readUInt32LE(index * entryBytes), page.readUInt32LE(index * entryBytes + 4)];
    const pfn = (high & 0xfffff) * 2 ** 20 + (low >>> 12);
    return (low & 1) === 1 && pfn < this.search.nrPfns ? pfn : null;
  }
}

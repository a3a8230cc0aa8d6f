/**
 * Memory as a guest's looks, from this machine's own bytes: programs and libraries, text, page tables, zero pages and,
 * where DORMOUSE_GUEST_PAGES names a raw file of guest pages, those. Nothing is used twice.
 */
import { Buffer } from 'node:buffer';
import { closeSync, fstatSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { pageBytes } from '../src/pfn/page_words.js';

/** One kind of page: its share of all pages, and how many were asked for and found. */
export interface MixtureShare {
  readonly kind: string;
  readonly share: number;
  readonly pages: number;
  readonly wantedPages: number;
  readonly source: string;
}

export interface MixedMemory {
  readonly memory: Buffer;
  readonly shares: readonly MixtureShare[];
  /** One line to print, with what was missing. */
  readonly description: string;
}

const runPages = 64;

/** splitmix64's little brother (mulberry32): the same mixture for the same seed and files. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z = (z + Math.imul(z ^ (z >>> 7), z | 61)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle<T>(items: T[], random: () => number): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const swapped = items[i] as T;
    items[i] = items[j] as T;
    items[j] = swapped;
  }
  return items;
}

const walked = new Map<string, readonly string[]>();

/** Regular files below the folders, links not followed, each hard-linked file once; walked once a process. */
function filesUnder(folders: readonly string[]): readonly string[] {
  const known = walked.get(folders.join());
  if (known) return known;
  const seen = new Set<string>();
  const found: string[] = [];
  const pending = [...folders];
  for (let folder = pending.pop(); folder !== undefined && found.length < 250_000; folder = pending.pop()) {
    let names: string[];
    try {
      names = readdirSync(folder).sort();
    } catch {
      continue; // not there, or not ours to read
    }
    for (const name of names) {
      const path = join(folder, name);
      const at = lstatSync(path, { throwIfNoEntry: false });
      if (at?.isDirectory()) pending.push(path);
      if (!at?.isFile() || at.size < 512 || seen.has(`${at.dev}:${at.ino}`)) continue;
      seen.add(`${at.dev}:${at.ino}`);
      found.push(path);
    }
  }
  walked.set(folders.join(), found);
  return found;
}

const isText = (bytes: Buffer): boolean => !bytes.subarray(0, 1024).includes(0);
const isElf = (bytes: Buffer): boolean => bytes.subarray(0, 4).equals(Buffer.from('\x7fELF', 'latin1'));

/** At most `most` bytes of a file; empty where it cannot be read. */
function readSome(path: string, most: number): Buffer {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return Buffer.alloc(0);
  }
  try {
    const bytes = Buffer.allocUnsafe(Math.min(most, fstatSync(fd).size));
    return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0));
  } catch {
    return Buffer.alloc(0);
  } finally {
    closeSync(fd);
  }
}

/** Fills `into` with the page cache of files that `wanted` takes; a file's tail is zero-filled as a kernel does. */
function fillFromFiles(
  into: Buffer,
  folders: readonly string[],
  wanted: (bytes: Buffer) => boolean,
  random: () => number,
): number {
  const mostOfAFile = 4 * 2 ** 20; // many files rather than a few large ones
  let at = 0;
  for (const path of shuffle([...filesUnder(folders)], random)) {
    if (at >= into.length) break;
    const bytes = readSome(path, Math.min(mostOfAFile, into.length - at));
    if (bytes.length === 0 || !wanted(bytes)) continue;
    bytes.copy(into, at);
    const end = Math.ceil(bytes.length / pageBytes) * pageBytes;
    into.fill(0, at + bytes.length, at + end);
    at += end;
  }
  return at;
}

/**
 * Canonical level-1 tables: runs of consecutive pfns with the flags Linux uses, holes between them; a quarter of the
 * tables map a whole 2 MiB as the direct map's do.
 */
function fillWithTables(into: Buffer, nrPfns: number, random: () => number): number {
  const kinds = [0x8000000000000067n, 0x8000000000000025n, 0x25n, 0x67n, 0x8000000000000063n];
  let next = 0;
  for (let table = 0; table < into.length; table += pageBytes) {
    into.fill(0, table, table + pageBytes);
    const direct = random() < 0.25;
    for (let entry = 0; entry < 512;) {
      const hole = direct ? 0 : Math.floor(random() ** 3 * 96);
      const length = direct ? 512 : 1 + Math.floor(random() ** 2 * 48);
      const flags = kinds[direct ? 4 : Math.floor(random() * 4)] ?? 0x67n;
      if (!direct) next = Math.floor(random() * nrPfns);
      entry += hole;
      for (const end = Math.min(512, entry + length); entry < end; entry++, next = (next + 1) % nrPfns)
        into.writeBigUInt64LE((BigInt(next) << 12n) | flags, table + entry * 8);
    }
  }
  return into.length;
}

/** The guest's pages that are not all zero, from the start of the raw file. */
function fillFromGuest(into: Buffer, path: string): number {
  const fd = openSync(path, 'r');
  const zero = Buffer.alloc(pageBytes);
  const piece = Buffer.allocUnsafe(256 * pageBytes);
  let at = 0;
  try {
    for (let offset = 0; at < into.length; offset += piece.length) {
      const got = readSync(fd, piece, 0, piece.length, offset);
      for (let page = 0; page + pageBytes <= got && at < into.length; page += pageBytes) {
        const bytes = piece.subarray(page, page + pageBytes);
        if (!bytes.equals(zero)) at += bytes.copy(into, at);
      }
      if (got < piece.length) break;
    }
  } finally {
    closeSync(fd);
  }
  return at;
}

interface Part {
  readonly kind: string;
  readonly weight: number;
  readonly source: string;
  readonly fill: (into: Buffer) => number;
}

function parts(nrPfns: number, random: () => number): Part[] {
  const guest = process.env.DORMOUSE_GUEST_PAGES;
  const programs = ['/usr/bin', '/usr/sbin', '/usr/lib', '/opt'];
  const texts = ['/usr/include', '/usr/share', '/etc', '/usr/lib'];
  const list: Part[] = [
    {
      kind: 'programs',
      weight: guest ? 0.2 : 0.45,
      source: 'ELF files of /usr and /opt',
      fill: (into) => fillFromFiles(into, programs, isElf, random),
    },
    {
      kind: 'text',
      weight: guest ? 0.12 : 0.28,
      source: 'text files of /usr and /etc',
      fill: (into) => fillFromFiles(into, texts, isText, random),
    },
    {
      kind: 'page tables',
      weight: 0.02,
      source: 'made: canonical level-1 tables',
      fill: (into) => fillWithTables(into, nrPfns, random),
    },
  ];
  if (guest)
    list.push({ kind: 'guest', weight: 0.41, source: guest, fill: (into) => fillFromGuest(into, guest) });
  return list;
}

/** Where each page goes: runs of one kind as a page cache has them, a tenth of the zero pages scattered singly. */
function layout(counts: readonly number[], zeroPages: number, random: () => number): number[] {
  const zeroKind = counts.length;
  const runs: { kind: number; length: number }[] = [];
  const addRuns = (kind: number, pages: number, longest: number): void => {
    for (let left = pages; left > 0;) {
      const length = Math.min(left, 1 + Math.floor(random() * longest));
      runs.push({ kind, length });
      left -= length;
    }
  };
  counts.forEach((pages, kind) => addRuns(kind, pages, runPages));
  const scattered = Math.floor(zeroPages / 10);
  addRuns(zeroKind, zeroPages - scattered, runPages * 4);
  for (let i = 0; i < scattered; i++) runs.push({ kind: zeroKind, length: 1 });
  return shuffle(runs, random).flatMap(({ kind, length }) => new Array<number>(length).fill(kind));
}

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

function describe(shares: readonly MixtureShare[]): string {
  const kinds = shares.map(({ kind, share, source }) => `${percent(share)} ${kind} (${source})`).join(', ');
  const short = shares.filter(({ pages, wantedPages }) => pages < wantedPages);
  const missing = short.map(({ kind, pages, wantedPages }) => `${kind}: ${pages} of ${wantedPages} pages`);
  return kinds + (missing.length > 0 ? `; not enough material for ${missing.join(', ')}` : '');
}

/**
 * At most `bytes` (whole pages) of mixed memory, a quarter of it zero; less where this machine has not enough material,
 * which the description then says. Deterministic for the same seed, files and size.
 */
export function mixedMemory(bytes: number, seed = 1): MixedMemory {
  if (!Number.isSafeInteger(bytes) || bytes < 64 * pageBytes || bytes % pageBytes !== 0)
    throw new RangeError(`${bytes} bytes of mixed memory`);
  const random = generator(seed);
  const wantedTotal = bytes / pageBytes;
  const filled = parts(wantedTotal, random).map((part) => {
    const wantedPages = Math.floor(wantedTotal * part.weight);
    const pool = Buffer.allocUnsafeSlow(wantedPages * pageBytes);
    return { part, pool, wantedPages, pages: part.fill(pool) / pageBytes };
  });
  const bodies = filled.reduce((sum, { pages }) => sum + pages, 0);
  // Zero pages keep their quarter of what there is.
  const complete = filled.every(({ pages, wantedPages }) => pages === wantedPages);
  const zeroPages = complete ? wantedTotal - bodies : Math.ceil(bodies / 3);
  const total = bodies + zeroPages;
  const memory = Buffer.alloc(total * pageBytes);
  const used = filled.map(() => 0);
  layout(
    filled.map(({ pages }) => pages),
    zeroPages,
    random,
  ).forEach((kind, page) => {
    const from = filled[kind];
    if (!from) return;
    const at = (used[kind] ?? 0) * pageBytes;
    used[kind] = (used[kind] ?? 0) + 1;
    from.pool.copy(memory, page * pageBytes, at, at + pageBytes);
  });
  const shares: MixtureShare[] = filled.map(({ part, pages, wantedPages }) => ({
    kind: part.kind,
    share: pages / total,
    pages,
    wantedPages,
    source: part.source,
  }));
  const zero = { kind: 'zero', pages: zeroPages, wantedPages: zeroPages, source: 'runs, a tenth scattered' };
  shares.push({ ...zero, share: zeroPages / total });
  return { memory, shares, description: describe(shares) };
}

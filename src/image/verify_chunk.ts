/** A parsed chunk and the page maps that lead to it, compared. */
import { MAX_CHUNK_SPAN, PAGE_HASH_SIZE } from './format.js';
import { type ChunkEntry, hashIs, type MapRuns, type ParsedChunk } from './parse.js';
import { pageBytes } from '../pfn/page_words.js';
import { classNames, classNumber } from '../pfn/counts.js';

/** A map, and the number by which its runs name the file at hand. */
export interface Sought {
  readonly map: MapRuns;
  readonly source: number;
}

const MOST_RUNS_NAMED = 16;

/** The pfns that are lost with a chunk, as far as the first map tells. */
export function pfnsOf(chunk: number, sought: readonly Sought[]): [number, number][] {
  const pfns: [number, number][] = [];
  for (const { map, source } of sought.slice(0, 1))
    for (const run of map.ofChunk(source, chunk)) {
      pfns.push([map.first[run] ?? 0, map.count(run)]);
      if (pfns.length === MOST_RUNS_NAMED) break;
    }
  return pfns;
}

/** Slots of the chunk to which the map leads. */
export function slotsOf(chunk: number, { map, source }: Sought): Set<number> {
  const slots = new Set<number>();
  for (const run of map.ofChunk(source, chunk))
    for (let i = 0; i < map.count(run); i++) slots.add((map.slot[run] ?? 0) + i);
  return slots;
}

/** Slots, of the pages from slot `first` on, whose page does not hash to what is stored of this chunk. */
export function wrongHashesOf(hashes: Buffer, first: number, pages: Buffer): number[] {
  const wrong: number[] = [];
  for (let i = 0; i * pageBytes < pages.length; i++) {
    const at = (first + i) * PAGE_HASH_SIZE;
    const stored = hashes.toString('hex', at, at + PAGE_HASH_SIZE);
    if (!hashIs(pages.subarray(i * pageBytes, (i + 1) * pageBytes), stored)) wrong.push(first + i);
  }
  return wrong;
}

/** Every page that a map seeks in this chunk must be at its slot, with its class and type; else what is wrong. */
export function checkRuns(
  { runs, head }: ParsedChunk,
  chunk: number,
  nrPfns: number,
  sought: readonly Sought[],
): string | null {
  const pfns = new Float64Array(head.pages);
  const kinds = new Uint8Array(head.pages);
  for (const run of runs) {
    if (run.first + run.count > nrPfns) return `pfn ${run.first} is beyond the image`;
    for (let i = 0; i < run.count; i++) {
      pfns[run.slot + i] = run.first + i;
      kinds[run.slot + i] = run.pageClass | (run.type << 4);
    }
  }
  for (const { map, source } of sought)
    for (const run of map.ofChunk(source, chunk)) {
      const [first, slot] = [map.first[run] ?? 0, map.slot[run] ?? 0];
      for (let i = 0; i < map.count(run); i++)
        if (pfns[slot + i] !== first + i || kinds[slot + i] !== map.kind[run])
          return `the page map seeks pfn ${first + i} in slot ${slot + i}, where it is not`;
    }
  return null;
}

/** Why these are not the chunks from the header up to there, one behind the other; null if they are. */
export function whyNoTable(entries: readonly ChunkEntry[], chunksEnd: number, newer: boolean): string | null {
  let at = pageBytes;
  for (const entry of entries.toSorted((a, b) => a.offset - b.offset)) {
    const sane =
      entry.offset === at &&
      entry.span >= pageBytes &&
      entry.span <= MAX_CHUNK_SPAN &&
      entry.span % pageBytes === 0 &&
      (entry.reserved === 0 || newer);
    if (!sane) return `the chunk table leaves a gap or overlap at ${at}`;
    at += entry.span;
  }
  return at === chunksEnd ? null : 'the chunk table ends elsewhere';
}

/** Pages by class as the file itself has them: what is absent or in another file is sameAsParent. */
export function countOwn(map: MapRuns): number[] {
  const counts = new Array<number>(classNames.length).fill(0);
  for (let run = 0; run < map.length; run++) {
    const own = map.source[run] === 0 && map.pageClass(run) !== 0;
    const counted = own ? map.pageClass(run) : classNumber('sameAsParent');
    counts[counted] = (counts[counted] ?? 0) + map.count(run);
  }
  return counts;
}

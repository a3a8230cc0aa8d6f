/** Pages of deltas, made anew for the verifier: without the reader's code. */
import { pageBytes } from '../pfn/page_words.js';
import { type ChunkEntry, hashIs, type DeltaBase, parseChunk, type ParsedChunk } from './parse.js';
import type { FileHandle } from 'node:fs/promises';
import { readExactly } from './file.js';
import { PAGE_HASH_SIZE } from './format.js';

/** The page that a delta rests on, or a sentence about why there is none; null if its file is none that the image names. */
export type FindBase = (base: DeltaBase, pfn: number, kind: number) => Promise<Buffer | string | null>;

/** A chunk of pages, decoded: what deltas can rest on. */
interface BaseChunk {
  readonly chunk: number;
  readonly pages: Buffer;
  readonly parsed: ParsedChunk;
}

function decodeBase(chunk: number, bytes: Buffer): BaseChunk | string {
  const parts: Buffer[] = [];
  const parsed = parseChunk(bytes, false, (_, block) => parts.push(Buffer.from(block)));
  return typeof parsed === 'string' ? parsed : { chunk, pages: Buffer.concat(parts), parsed };
}

/** The body in that slot, if it is that page with that class and type. */
function pageOf({ pages, parsed }: BaseChunk, slot: number, pfn: number, kind: number): Buffer | null {
  const run = parsed.runs.find((one) => slot >= one.slot && slot < one.slot + one.count);
  if (!run || run.first + slot - run.slot !== pfn || (run.pageClass | (run.type << 4)) !== kind) return null;
  return pages.subarray(slot * pageBytes, (slot + 1) * pageBytes);
}

/** Those of one file; the last one is kept. */
export class BaseChunks {
  private last: BaseChunk | undefined;

  async page(
    file: FileHandle,
    { offset, span, hash }: ChunkEntry,
    { chunk, slot }: DeltaBase,
    pfn: number,
    kind: number,
  ): Promise<Buffer | string> {
    if (this.last?.chunk !== chunk) {
      const bytes = await readExactly(file, offset, span);
      const base = hashIs(bytes, hash) ? decodeBase(chunk, bytes) : 'its checksum differs';
      if (typeof base === 'string') return `rests on chunk ${chunk} of another file: ${base}`;
      this.last = base;
    }
    return pageOf(this.last, slot, pfn, kind) ?? 'rests on another page';
  }
}

function exclusiveOr(a: Buffer, b: Buffer): Buffer {
  const made = Buffer.from(a);
  for (let i = 0; i < made.length; i++) made[i] = (made[i] ?? 0) ^ (b[i] ?? 0);
  return made;
}

/**
 * What is wrong with the first delta that does not give what its hash says; `changes`: decoded, by slot. Only those that count, whose slots are
 * `needed`, must rest on a file that is there: what others rest on may be gone.
 */
export async function checkDeltas(
  { runs, bases }: ParsedChunk,
  changes: readonly Buffer[],
  hashes: Buffer,
  needed: ReadonlySet<number>,
  find: FindBase,
): Promise<string | null> {
  for (const { first, count, slot, pageClass, type } of runs)
    for (let i = 0; i < count; i++) {
      const at = slot + i;
      const [base, change] = [bases[at], changes[at]];
      if (!base || !change) return 'its deltas do not add up';
      const page = await find(base, first + i, pageClass | (type << 4));
      if (page === null && !needed.has(at)) continue;
      if (page === null) return `the delta of pfn ${first + i} rests on a file that the image does not name`;
      if (typeof page === 'string') return `the delta of pfn ${first + i} ${page}`;
      const stored = hashes.toString('hex', at * PAGE_HASH_SIZE, (at + 1) * PAGE_HASH_SIZE);
      if (!hashIs(exclusiveOr(page, change), stored))
        return `the delta of pfn ${first + i} gives another page than its hash says`;
    }
  return null;
}

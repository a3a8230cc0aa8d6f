/**
 * The addon's bounded steps, typed. Each works on a few MiB at most; handles are valid in every thread.
 * Native code: native/step.
 */
import type { Buffer } from 'node:buffer';
import { addon } from '../addon.js';
import type {
  DiffHandle,
  DigestHandle,
  LiveHandle,
  MemoryHandle,
  PageFileHandle,
  ReaderHandle,
  RewindHandle,
  TrackerHandle,
  WriterHandle,
} from '../handle.js';

/** What a live step does with pages that it cannot take as they are, and whether it looks for changed ones first. */
export const passKinds = { live: 0, seek: 1, standing: 2 } as const;
export type PassKind = (typeof passKinds)[keyof typeof passKinds];

/** A stretch of pfns (or chunks): first and count. */
export type Piece = readonly [first: number, count: number];

export interface CaptureHow {
  /** What the host's log names, one bit a pfn; null where there is none. */
  readonly logged: Buffer | null;
  /** With every page whose type changed, logged or not. */
  readonly thorough: boolean;
  /** The guest is not at its suspend point and may map pages of the hypervisor's own. */
  readonly anywhere: boolean;
  readonly maxPages: number;
  readonly threads: number;
}

export interface StepsNative {
  saveStep(
    memory: MemoryHandle,
    writer: WriterHandle,
    lane: number,
    firstPfn: number,
    count: number,
  ): number[];
  restoreStep(
    memory: MemoryHandle,
    reader: ReaderHandle,
    lane: number,
    firstUnit: number,
    count: number,
  ): number;
  /** Hashes the pages of chunks whose file has no hashes; after prepareHashes() of the reader. */
  hashStep(reader: ReaderHandle, lane: number, firstChunk: number, count: number): void;
  digestCreate(nrPfns: number): DigestHandle;
  /** Takes memory by the image's pages and runs. */
  digestCreateOfImage(reader: ReaderHandle): DigestHandle;
  digestDomainStep(memory: MemoryHandle, digest: DigestHandle, firstPfn: number, count: number): void;
  digestImageStep(
    reader: ReaderHandle,
    digest: DigestHandle,
    lane: number,
    firstChunk: number,
    count: number,
  ): void;
  digestSetPage(digest: DigestHandle, pfn: number, type: number, page: Buffer): void;
  digestBlank(digest: DigestHandle, pfn: number): void;
  digestFinish(digest: DigestHandle): string;
  digestRelease(digest: DigestHandle): boolean;
  /** Frame and page type (`mfn | type << 60`) of at most 1024 pfns. */
  queryPages(memory: MemoryHandle, firstPfn: number, count: number): BigUint64Array;
  readPages(memory: MemoryHandle, pfns: BigUint64Array): Buffer;
  writePages(memory: MemoryHandle, pfns: BigUint64Array, pages: Buffer): void;
  /**
   * Notes pages that came: the type of each pfn, and in `placing` those with content, which are to be placed. `fresh`, with room for them
   * all, gets the pfns that are to have a frame. Nothing is done if `highestPfn` is beyond the arrays, or one of them is being placed.
   */
  admitPages(
    descs: BigUint64Array,
    types: Uint8Array,
    placing: Uint8Array,
    fresh: BigUint64Array,
  ): { highestPfn: number; populate: number; overlaps: boolean };
  /**
   * Writes pages, as a chunk has them, to frames they have: zero pages too, tables as they come. Off the event loop; several calls may
   * be at work, on different pages. Their marks in `placing` are gone when it resolves.
   */
  placePages(memory: MemoryHandle, descs: BigUint64Array, bodies: Buffer, placing: Uint8Array): Promise<void>;
  /** Localises tables that lie in canonical form in a memory being built. */
  localiseTables(memory: MemoryHandle, pfns: BigUint64Array, levels: Uint8Array): void;
  writeP2mLeaves(memory: MemoryHandle, leafPfns: BigUint64Array): void;
  framesToPfns(memory: MemoryHandle, mfns: BigUint64Array): BigUint64Array;
  pfnsToFrames(memory: MemoryHandle, pfns: BigUint64Array): BigUint64Array;
  /** Takes over a memory that another addon opened; released by `releaseMemory`. */
  adoptMemory(external: unknown): MemoryHandle;
  releaseMemory(memory: MemoryHandle): boolean;
  /** A content tracker over that many pfns, 16 bytes each; every page counts as changed until recorded. */
  trackerCreate(nrPfns: number): TrackerHandle;
  /** Hashes pages as they are now. */
  trackerRecord(tracker: TrackerHandle, memory: MemoryHandle, firstPfn: number, count: number): void;
  /** Bitmap, one bit a pfn, of what is not as recorded; of a guest that stands still. Blocks the caller meanwhile. */
  trackerChanged(tracker: TrackerHandle, memory: MemoryHandle, threads: number): Buffer;
  trackerRelease(tracker: TrackerHandle): boolean;
  /**
   * A domain on its way into an image while it runs: the set of pages that the image does not hold as they are (all, at
   * first), hashes of what it holds where `byContent`, and room for `maxCopiedPages` pages, taken and touched now.
   */
  liveCreate(nrPfns: number, byContent: boolean, maxCopiedPages: number): LiveHandle;
  /** One bounded piece of a pass over the set; pages put, by class. `firstPfn` is a multiple of 64. */
  liveStep(
    live: LiveHandle,
    memory: MemoryHandle,
    writer: WriterHandle,
    lane: number,
    kind: PassKind,
    firstPfn: number,
    count: number,
  ): number[];
  /** Adds the pages of a dirty log to the set, and those whose frame changed by it: `bitmap` gets their bits too. */
  liveMerge(live: LiveHandle, memory: MemoryHandle, bitmap: Buffer): void;
  /** Adds the pages whose type is not what the image holds: frames gained and lost, tables made. Blocks the caller. */
  liveFindRetyped(live: LiveHandle, memory: MemoryHandle): void;
  /**
   * One image: every page is pending if `whole`, else what changed since the last one. What is taken out of the set is
   * remembered until the epoch ends: if it was not committed it is pending again.
   */
  liveBeginEpoch(live: LiveHandle, whole: boolean): void;
  liveEndEpoch(live: LiveHandle, committed: boolean): void;
  /** Pages that the last capture copied and holds; -1 if it copied none as they were too many. */
  liveCopied(live: LiveHandle): number;
  /** What copying took of the last capture; the rest of it went into finding what changed. */
  liveCopyingMs(live: LiveHandle): number;
  /** Pages in the set. */
  livePending(live: LiveHandle): number;
  /**
   * Of a guest that stands still: adds all that changed since to the set, by `logged` or (null) by content, and copies
   * the pages of the set and canonicalises their tables; false, and nothing copied, if they are more than `maxPages`.
   * Blocks the caller. PAGE_TABLE_INVALID, GUEST_MEMORY_UNREADABLE.
   */
  liveCapture(live: LiveHandle, memory: MemoryHandle, how: CaptureHow): boolean;
  /** The same as work for an addon that stops the domain and reads its log itself. */
  exportCapture(
    live: LiveHandle,
    memory: MemoryHandle,
    how: Omit<CaptureHow, 'logged'> & { readonly logged: boolean },
  ): unknown;
  /**
   * Pieces of some `pages` pages of work each that cover [0, nrPfns): where a domain has no frames they are long. Each
   * begins at a multiple of 64.
   */
  memoryPieces(memory: MemoryHandle, nrPfns: number, pages: number): Piece[];
  /** The same over the pages of the set; what is not in it is left out. */
  livePieces(live: LiveHandle, memory: MemoryHandle, pages: number): Piece[];
  /** Appends copied pages [first, first + count) to the image, each once. */
  livePut(live: LiveHandle, writer: WriterHandle, lane: number, first: number, count: number): number[];
  liveRelease(live: LiveHandle): boolean;
  /**
   * A domain on its way back to an image: which of its pages differ, and room for the content of so many of them.
   * `leafPfns`: the image's p2m leaves, whose content follows from the frames. `startInfoPfn` is put back whatever it holds.
   */
  rewindCreate(
    reader: ReaderHandle,
    leafPfns: BigUint64Array,
    startInfoPfn: number | null,
    maxKept: number,
  ): RewindHandle;
  /** Before anything else: the image is of a time at which the domain had the same frames. `alone` pages stay as they are. */
  rewindKeepFrames(rewind: RewindHandle, alonePfns: BigUint64Array): void;
  /** Takes every page for one that may differ, if the content of all is kept: then nothing need be compared. Whether it did. */
  rewindSuspectAll(rewind: RewindHandle): boolean;
  /** Looks at all types and frames; first of all, and where the host's log may not tell of them. Blocks the caller. */
  rewindLook(rewind: RewindHandle, memory: MemoryHandle): void;
  /** Adds the pages of a dirty log to those that may differ. */
  rewindMerge(rewind: RewindHandle, bitmap: Buffer): void;
  /** Reads, checks and compares units of the image; pages that differ. What they are to hold is kept. */
  rewindCompare(
    rewind: RewindHandle,
    memory: MemoryHandle,
    lane: number,
    firstUnit: number,
    count: number,
  ): number;
  /** Chunks with such pages whose content is not kept. */
  rewindMissing(rewind: RewindHandle): Piece[];
  rewindKeep(rewind: RewindHandle, lane: number, firstChunk: number, count: number): void;
  /** Of a domain that stands still: what is to be done besides the content of pages. `whole`: no table counts any more. */
  rewindPlan(
    rewind: RewindHandle,
    memory: MemoryHandle,
    whole: boolean,
  ): {
    gained: Piece[];
    lost: Piece[];
    tables: number[];
    unpinned: number[];
    pins: { pfn: number; level: 1 | 2 | 3 | 4 }[];
  };
  /** Writes what differs of the pages that are kept, off the event loop unless they are few: pages put, and those that were the same after all. */
  rewindWrite(
    rewind: RewindHandle,
    memory: MemoryHandle,
    threads: number,
  ): Promise<[put: number, same: number]> | [put: number, same: number];
  /** The same of the pages in these chunks that are not kept. */
  rewindPlace(
    rewind: RewindHandle,
    memory: MemoryHandle,
    lane: number,
    firstChunk: number,
    count: number,
  ): [put: number, same: number];
  rewindRelease(rewind: RewindHandle): boolean;
  /**
   * Two images, page by page. `sameFiles`: for each file of `from` the number of that of `to` which it is, or one that `to` does not have: a
   * page in one slot of one file for both is not read.
   */
  diffCreate(from: ReaderHandle, to: ReaderHandle, sameFiles: readonly number[]): DiffHandle;
  /** Bytes [first, end) of a page count as zeroes. */
  diffBlank(diff: DiffHandle, ofTo: boolean, pfn: number, first: number, end: number): void;
  /**
   * First of `from`, then of `to`: takes the hashes that its files hold, where it was opened with them, and answers which chunks have pages
   * that are to be looked at all the same; pieces of at most `most`. Blocks the caller.
   */
  diffSeek(diff: DiffHandle, ofTo: boolean, most: number): Piece[];
  /** Looks at them. */
  diffLook(diff: DiffHandle, ofTo: boolean, lane: number, firstChunk: number, count: number): void;
  /** Once all was looked at: runs `first, count` of the pages that differ, by their classes in the one and in the other. */
  diffFinish(diff: DiffHandle): { from: number; to: number; runs: Float64Array }[];
  diffRelease(diff: DiffHandle): boolean;
  /** Puts units of an image into a writer as they are. */
  copyStep(
    reader: ReaderHandle,
    writer: WriterHandle,
    lane: number,
    firstUnit: number,
    count: number,
    asStored: boolean,
  ): void;
  /** The same of pfns without a frame, which are in no unit. */
  copyHoles(reader: ReaderHandle, writer: WriterHandle, lane: number, firstPfn: number, count: number): void;
  /** Reads and checks chunks and writes their pages. */
  pageFilePut(file: PageFileHandle, lane: number, firstChunk: number, count: number): void;
  pageFileRelease(file: PageFileHandle): boolean;
  openObjects(): {
    memories: number;
    writers: number;
    readers: number;
    digests: number;
    trackers: number;
    livePasses: number;
    rewinds: number;
    diffs: number;
    pageFiles: number;
  };
}

let namespace: StepsNative | undefined;

export function steps(): StepsNative {
  namespace ??= addon('step') as StepsNative;
  return namespace;
}

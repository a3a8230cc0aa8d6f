/** The addon's part for images, typed. Handles are valid in every thread of the process. */
import { addon } from '../addon.js';
import type { Compression } from '../codec/compression.js';
import type { BasePagesHandle, ReaderHandle, WriterHandle } from '../handle.js';

export interface WriterSetup {
  readonly path: string;
  /** The first page of the file. */
  readonly header: Buffer;
  readonly nrPfns: number;
  readonly lanes: number;
  readonly direct: boolean;
  readonly unnamed: boolean;
  readonly nameless: boolean;
  readonly pageHashes: boolean;
  readonly digests: boolean;
  /** Pages below this may stay as they are in the parent; 0 without one. */
  readonly parentPfns: number;
  /** The parent's reader, or 0. */
  readonly parent: ReaderHandle | 0;
  readonly fullMap: boolean;
  /** Leave out what the parent, whose page hashes are complete, holds as it is. */
  readonly skipUnchanged: boolean;
  /** Every pfn must be appended, be it only to be left out. */
  readonly complete: boolean;
  readonly compression: Compression;
  readonly deltas: DeltaSetup;
}

/** What pages may be stored as: what changed of what `pages` holds of these images. Each is known by a number of the session's. */
export interface DeltaSetup {
  /** 0: as none. */
  readonly pages: BasePagesHandle | 0;
  /** Of the image to be written. */
  readonly image: number;
  readonly images: readonly { readonly image: number; readonly age: number }[];
}

/** One file with chunks. Its descriptor is duplicated; empty buffers where it has no such region. */
export interface SourceSetup {
  readonly fd: number;
  readonly name: string;
  readonly nrPfns: number;
  /** Of a newer minor version. */
  readonly newer: boolean;
  readonly chunksEnd: number;
  readonly chunkTable: Buffer;
  readonly digests: Buffer;
  readonly pageHashes: Buffer;
  /** It may have deltas. */
  readonly deltas: boolean;
  /** By how much older each file is that they may rest on, less one: which of the reader's; 0 for none. */
  readonly bases: readonly number[];
}

/** One page map; `sources`: by the runs' source number, which of the reader's. */
export interface LayerSetup {
  readonly map: Buffer;
  readonly runs: number;
  readonly nrPfns: number;
  readonly sparse: boolean;
  readonly newer: boolean;
  readonly sources: readonly number[];
}

export interface NativeImage {
  createWriter(setup: WriterSetup): WriterHandle;
  /** To an image, or to a stream. */
  append(handle: WriterHandle, lane: number, descs: BigUint64Array, bodies: Buffer): void;
  writerCounts(handle: WriterHandle): {
    /** From 8 on: left out, by class. */
    byClass: number[];
    storedPages: number;
    storedBytes: number;
    sharedBytes: number;
  };
  finish(handle: WriterHandle): Promise<void>;
  writerChunkTable(handle: WriterHandle): Buffer;
  /** 16 bytes a page in chunks, 32 bytes a chunk; by chunk and slot. */
  writerPageHashes(handle: WriterHandle): Buffer;
  writerDigests(handle: WriterHandle): Buffer;
  /** `before`: 32 bytes, the parent's or zeroes. */
  writerContentRoot(handle: WriterHandle, before: Buffer): Buffer;
  /** Bit i: some delta rests on an image that is i + 1 older. */
  writerDeltaAges(handle: WriterHandle): number;
  createBasePages(mostPages: number): BasePagesHandle;
  closeBasePages(handle: BasePagesHandle): boolean;
  encodeMap(handle: WriterHandle): { bytes: Buffer; runs: number; more: boolean };
  writeTail(handle: WriterHandle, bytes: Buffer): void;
  publish(handle: WriterHandle): Promise<void>;
  /** Of the file, to be closed by the caller. */
  descriptor(handle: WriterHandle): number;
  releaseWriter(handle: WriterHandle): boolean;
  /** For tests: the nth system call on the file from now fails with that errno (and all after it). */
  failCall(handle: WriterHandle, nth: number, errno: number, forEver: boolean): void;
  openReader(setup: {
    readonly lanes: number;
    readonly sources: readonly SourceSetup[];
    readonly layers: readonly LayerSetup[];
  }): ReaderHandle;
  closeReader(handle: ReaderHandle): boolean;
  checkChunk(handle: ReaderHandle, lane: number, chunk: number): void;
  readChunk(handle: ReaderHandle, lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer };
  chunkEntry(
    handle: ReaderHandle,
    chunk: number,
  ): { source: number; chunk: number; offset: number; span: number; pages: number };
  /** Once, before chunks are read: from then on the list of chunks has those that deltas rest on too. All lanes are at work. */
  followDeltas(handle: ReaderHandle): Promise<void>;
  readerExtent(handle: ReaderHandle): { chunks: number; units: number; usedSources: boolean[] };
  prepareHashes(handle: ReaderHandle): void;
  readPages(handle: ReaderHandle, pfns: Float64Array, out: Buffer): void;
  pageEntry(
    handle: ReaderHandle,
    pfn: number,
  ): [pageClass: number, type: number, chunk: number, slot: number];
  classRuns(handle: ReaderHandle, classMask: number, byType: boolean): Float64Array;
  readerCounts(handle: ReaderHandle): { own: number[]; all: number[] };
  openImages(): number;
}

export const nativeImage = (): NativeImage => addon('image') as NativeImage;

/** The addon's part for images, typed. Handles are numbers valid in every thread of the process. */
import { addon } from '../addon.js';

export interface WriterSetup {
  readonly path: string;
  /** The first page of the file. */
  readonly header: Buffer;
  readonly nrPfns: number;
  readonly lanes: number;
  readonly direct: boolean;
  readonly unnamed: boolean;
  readonly pageHashes: boolean;
  readonly digests: boolean;
  /** Pages below this may stay as they are in the parent; 0 without one. */
  readonly parentPfns: number;
  /** Handle of the parent's reader, or 0. */
  readonly parent: number;
  readonly fullMap: boolean;
  /** Leave out what the parent, whose page hashes are complete, holds as it is. */
  readonly skipUnchanged: boolean;
  /** Every pfn must be appended, be it only to be left out. */
  readonly complete: boolean;
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
  createWriter(setup: WriterSetup): number;
  /** To an image, or to a stream. */
  append(handle: number, lane: number, descs: BigUint64Array, bodies: Buffer): void;
  writerCounts(handle: number): {
    /** From 8 on: left out, by class. */
    byClass: number[];
    storedPages: number;
    storedBytes: number;
  };
  finish(handle: number): Promise<void>;
  writerChunkTable(handle: number): Buffer;
  /** 16 bytes a page in chunks, 32 bytes a chunk; by chunk and slot. */
  writerPageHashes(handle: number): Buffer;
  writerDigests(handle: number): Buffer;
  /** `before`: 32 bytes, the parent's or zeroes. */
  writerContentRoot(handle: number, before: Buffer): Buffer;
  encodeMap(handle: number): { bytes: Buffer; runs: number; more: boolean };
  writeTail(handle: number, bytes: Buffer): void;
  publish(handle: number): Promise<void>;
  releaseWriter(handle: number): boolean;
  /** For tests: the nth system call on the file from now fails with that errno (and all after it). */
  failCall(handle: number, nth: number, errno: number, forEver: boolean): void;
  openReader(setup: {
    readonly lanes: number;
    readonly sources: readonly SourceSetup[];
    readonly layers: readonly LayerSetup[];
  }): number;
  closeReader(handle: number): boolean;
  checkChunk(handle: number, lane: number, chunk: number): void;
  readChunk(handle: number, lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer };
  chunkEntry(
    handle: number,
    chunk: number,
  ): { source: number; chunk: number; offset: number; span: number; pages: number };
  readerExtent(handle: number): { chunks: number; units: number; usedSources: boolean[] };
  prepareHashes(handle: number): void;
  readPages(handle: number, pfns: Float64Array, out: Buffer): void;
  pageEntry(handle: number, pfn: number): [pageClass: number, type: number, chunk: number, slot: number];
  classRuns(handle: number, classMask: number, byType: boolean): Float64Array;
  readerCounts(handle: number): { own: number[]; all: number[] };
  openImages(): number;
}

export const nativeImage = (): NativeImage => addon('image') as NativeImage;

/** The addon's part for images, typed. Handles are valid in every thread of the process. */
import { addon } from '../addon.js';
import type { ReaderHandle, WriterHandle } from '../handle.js';

export interface NativeImage {
  createWriter(
    path: string,
    header: Buffer,
    nrPfns: number,
    lanes: number,
    hasParent: boolean,
    direct: boolean,
    unnamed: boolean,
  ): WriterHandle;
  /** To an image, or to a stream. */
  append(handle: WriterHandle, lane: number, descs: BigUint64Array, bodies: Buffer): void;
  writerCounts(handle: WriterHandle): {
    byClass: number[];
    storedPages: number;
    storedBodies: number;
    storedBytes: number;
  };
  finish(handle: WriterHandle): Promise<void>;
  writerChunkTable(handle: WriterHandle): Buffer;
  encodeMap(handle: WriterHandle): { bytes: Buffer; runs: number; more: boolean };
  writeTail(handle: WriterHandle, bytes: Buffer): void;
  publish(handle: WriterHandle): Promise<void>;
  releaseWriter(handle: WriterHandle): boolean;
  /** For tests: the nth system call on the file from now fails with that errno (and all after it). */
  failCall(handle: WriterHandle, nth: number, errno: number, forEver: boolean): void;
  openReader(
    options: {
      fd: number;
      imageId: Buffer;
      nrPfns: number;
      lanes: number;
      hasParent: boolean;
      chunksEnd: number;
      pageMapRuns: number;
    },
    chunkTable: Buffer,
    pageMap: Buffer,
  ): ReaderHandle;
  closeReader(handle: ReaderHandle): boolean;
  checkChunk(handle: ReaderHandle, lane: number, chunk: number): void;
  readChunk(handle: ReaderHandle, lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer };
  chunkEntry(
    handle: ReaderHandle,
    chunk: number,
  ): { offset: number; span: number; pages: number; bodies: number };
  readPages(handle: ReaderHandle, pfns: Float64Array, out: Buffer): void;
  pageEntry(
    handle: ReaderHandle,
    pfn: number,
  ): [pageClass: number, type: number, chunk: number, slot: number];
  classRuns(handle: ReaderHandle, classMask: number, byType: boolean): Float64Array;
  readerCounts(handle: ReaderHandle): number[];
  openImages(): number;
}

export const nativeImage = (): NativeImage => addon('image') as NativeImage;

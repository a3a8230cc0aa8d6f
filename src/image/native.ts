/** The addon's part for images, typed. Handles are numbers valid in every thread of the process. */
import { addon } from '../addon.js';

export interface NativeImage {
  createWriter(
    path: string,
    header: Buffer,
    nrPfns: number,
    lanes: number,
    hasParent: boolean,
    direct: boolean,
    unnamed: boolean,
  ): number;
  /** To an image, or to a stream. */
  append(handle: number, lane: number, descs: BigUint64Array, bodies: Buffer): void;
  writerCounts(handle: number): {
    byClass: number[];
    storedPages: number;
    storedBodies: number;
    storedBytes: number;
  };
  finish(handle: number): Promise<void>;
  writerChunkTable(handle: number): Buffer;
  encodeMap(handle: number): { bytes: Buffer; runs: number; more: boolean };
  writeTail(handle: number, bytes: Buffer): void;
  publish(handle: number): Promise<void>;
  releaseWriter(handle: number): boolean;
  /** For tests: the nth system call on the file from now fails with that errno (and all after it). */
  failCall(handle: number, nth: number, errno: number, forEver: boolean): void;
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
  ): number;
  closeReader(handle: number): boolean;
  checkChunk(handle: number, lane: number, chunk: number): void;
  readChunk(handle: number, lane: number, chunk: number): { descs: BigUint64Array; bodies: Buffer };
  chunkEntry(handle: number, chunk: number): { offset: number; span: number; pages: number; bodies: number };
  readPages(handle: number, pfns: Float64Array, out: Buffer): void;
  pageEntry(handle: number, pfn: number): [pageClass: number, type: number, chunk: number, slot: number];
  classRuns(handle: number, classMask: number, byType: boolean): Float64Array;
  readerCounts(handle: number): number[];
  openImages(): number;
}

export const nativeImage = (): NativeImage => addon('image') as NativeImage;

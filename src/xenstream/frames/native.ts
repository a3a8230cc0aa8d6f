/** The addon's part for streams of pages, typed. Handles are valid in every thread of the process. */
import type { Buffer } from 'node:buffer';
import { addon } from '../../addon.js';
import type { WriterHandle } from '../../handle.js';

export interface NativePageStream {
  create(
    fd: number,
    libxc: boolean,
    nrPfns: number,
    lanes: number,
    id: Buffer,
    stallMs: number,
  ): WriterHandle;
  putFrame(handle: WriterHandle, kind: number, body: Buffer): Promise<void>;
  /** Bytes as they are. */
  putBytes(handle: WriterHandle, bytes: Buffer): Promise<void>;
  /** Whatever is written, and would be, ends with CANCELLED within 0.1 s. */
  cancel(handle: WriterHandle): void;
  counts(handle: WriterHandle): { byClass: number[]; writtenBytes: number };
  checkComplete(handle: WriterHandle): void;
  release(handle: WriterHandle): boolean;
  /** `newer`: of a newer minor version. `descs` and `bodies` have room for the largest chunk; returns how many of each were written there. */
  decodeFrame(
    body: Buffer,
    newer: boolean,
    nrPfns: number,
    descs: BigUint64Array,
    bodies: Buffer,
  ): [pages: number, bodies: number];
}

export const nativePageStream = (): NativePageStream => addon('pageStream') as NativePageStream;

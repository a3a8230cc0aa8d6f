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
  /**
   * Decodes a frame, of which the body is the first `bodyBytes`, off the event loop. It has room for whole pages of 4096 bytes, and what
   * follows the body is lost. `newer`: of a newer minor version. `descs` and `bodies` have room for the largest chunk; resolves to how
   * many of each were written there. Nobody else touches the three meanwhile.
   */
  decodeFrame(
    frame: Buffer,
    bodyBytes: number,
    newer: boolean,
    nrPfns: number,
    descs: BigUint64Array,
    bodies: Buffer,
  ): Promise<[pages: number, bodies: number]>;
}

export const nativePageStream = (): NativePageStream => addon('pageStream') as NativePageStream;

/** The addon's part for streams of pages, typed. Handles are numbers valid in every thread of the process. */
import type { Buffer } from 'node:buffer';
import { addon } from '../../addon.js';

export interface NativePageStream {
  create(fd: number, libxc: boolean, nrPfns: number, lanes: number, id: Buffer): number;
  putFrame(handle: number, kind: number, body: Buffer): void;
  counts(handle: number): { byClass: number[]; writtenBytes: number };
  checkComplete(handle: number): void;
  release(handle: number): boolean;
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

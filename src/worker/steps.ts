/**
 * The addon's bounded steps, typed. Each works on a few MiB at most; handles are numbers valid in every thread.
 * Native code: native/step.
 */
import type { Buffer } from 'node:buffer';
import { addon } from '../addon.js';

export interface StepsNative {
  saveStep(memory: number, writer: number, lane: number, firstPfn: number, count: number): number[];
  restoreStep(memory: number, reader: number, lane: number, firstChunk: number, count: number): number;
  checkStep(reader: number, lane: number, firstChunk: number, count: number): void;
  digestCreate(nrPfns: number): number;
  digestDomainStep(memory: number, digest: number, firstPfn: number, count: number): void;
  digestImageStep(reader: number, digest: number, lane: number, firstChunk: number, count: number): void;
  digestSetPage(digest: number, pfn: number, type: number, page: Buffer): void;
  digestBlank(digest: number, pfn: number): void;
  digestFinish(digest: number): string;
  digestRelease(digest: number): boolean;
  readPages(memory: number, pfns: BigUint64Array): Buffer;
  writePages(memory: number, pfns: BigUint64Array, pages: Buffer): void;
  writeP2mLeaves(memory: number, leafPfns: BigUint64Array): void;
  framesToPfns(memory: number, mfns: BigUint64Array): BigUint64Array;
  pfnsToFrames(memory: number, pfns: BigUint64Array): BigUint64Array;
  openObjects(): { memories: number; writers: number; readers: number; digests: number };
}

let namespace: StepsNative | undefined;

export function steps(): StepsNative {
  namespace ??= addon('step') as StepsNative;
  return namespace;
}

/**
 * Where a store keeps its things: small enough that an object store can be one. Names are `part/part/...` of letters, digits,
 * `.`, `_`, `~` and `-`, each part beginning with a letter or a digit; no name is the folder of another. What a call has done is durable
 * when it returns, unless it is asked for less. What must hold of each shelf is tested by test/support/shelf_contract.ts.
 */
import type { Buffer } from 'node:buffer';
import { DormouseError } from '../errors.js';

/** Records are some hundred bytes; a lease names a few images, a prune's note the points that go. */
export const largestBytes = 4 << 20;

/** INTERNAL for what is no name of a thing or a folder. */
export function requireName(name: string): void {
  if (!/^[0-9A-Za-z][\w.~-]*(?:\/[0-9A-Za-z][\w.~-]*)*$/u.test(name))
    throw new DormouseError('INTERNAL', `'${name}' is no name of a thing in a store`);
}

/** `fleeting`: after a loss of power it may be there or not, but if it is, then whole. Until then all see it as anything else. */
export type Lasts = 'durable' | 'fleeting';

/** A file that is filled by its path, and has no name yet. */
export interface NewFile {
  readonly path: string;
  /** Gives it its name, with all that was written to it; false if there is something of that name. Once. */
  publish(): Promise<boolean>;
  /** It is never to be. Nothing to do after `publish`. */
  drop(): Promise<void>;
}

export interface Shelf {
  /** For messages. */
  readonly description: string;
  /** Keeps the bytes under the name, whole or not at all; false if there is something of that name already. */
  putIfAbsent(name: string, bytes: Buffer, lasts?: Lasts): Promise<boolean>;
  /** All of it; null if there is nothing of that name. STORE_DAMAGED for what has 4 MiB or more: nothing that is kept so does. */
  get(name: string): Promise<Buffer | null>;
  /**
   * What follows in all names that begin with `folder/`, up to the next `/`: sorted, each once. Of the root: ``. A folder may be listed
   * for which there are no names any more, or not yet.
   */
  list(folder: string): Promise<readonly string[]>;
  /** Bytes that the thing of that name takes; null if there is none. */
  size(name: string): Promise<number | null>;
  /** False if there was nothing of that name. */
  delete(name: string, lasts?: Lasts): Promise<boolean>;
  /** A new file, empty, which is to get that name once it is whole. */
  create(name: string): Promise<NewFile>;
  /** Where an image, of memory or of a disk, is read as a file, and the former written once; its folder is there when it returns. */
  imagePath(name: string): Promise<string>;
  /** Bytes that can still be written; Infinity where nobody knows. */
  freeBytes(): Promise<number>;
  /** Removes from a folder what puts that never ended have left; `inUse`: last parts that somebody may be writing just now. */
  sweep(folder: string, inUse: ReadonlySet<string>): Promise<void>;
}

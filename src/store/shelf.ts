/**
 * Where a store keeps its things: small enough that an object store can be one. Names are `part/part/...` of letters, digits,
 * `.`, `_`, `~` and `-`, none beginning with a dot. What a call has done is durable when it returns.
 */
import type { Buffer } from 'node:buffer';

export interface Shelf {
  /** For messages. */
  readonly description: string;
  /** Keeps the bytes under the name, whole or not at all; false if there is something of that name already. */
  putIfAbsent(name: string, bytes: Buffer): Promise<boolean>;
  /** At most 4 MiB; null if there is nothing of that name. */
  get(name: string): Promise<Buffer | null>;
  /** The last parts of all names that begin with `folder/`, sorted; none where there is no such folder. Of the root: ``. */
  list(folder: string): Promise<readonly string[]>;
  /** Bytes that the thing of that name takes; null if there is none. */
  size(name: string): Promise<number | null>;
  /** False if there was nothing of that name. */
  delete(name: string): Promise<boolean>;
  /** Where an image of that name is written and read as a file, once; its folder is there when it returns. */
  imagePath(name: string): Promise<string>;
  /** Bytes that can still be written; Infinity where nobody knows. */
  freeBytes(): Promise<number>;
  /** Removes from a folder what puts that never ended have left; `inUse`: last parts that somebody may be writing just now. */
  sweep(folder: string, inUse: ReadonlySet<string>): Promise<void>;
}

/** The image that an increment is taken on. */
import { dirname, join } from 'node:path';
import { DormouseError } from '../errors.js';
import { realPath, syncFile } from '../image/file.js';
import { ImageReader } from '../image/reader.js';
import { isTrustedKey } from '../trust/key_store.js';
import { chunksPerStep, encodingLanes, runOverRange } from '../worker/pool.js';

/** What this host signs it vouches for, and an increment's pages are mostly its parent's. */
function requireTrusted(reader: ImageReader): void {
  const key = reader.signer?.key ?? null;
  if (isTrustedKey(key)) return;
  const { path } = reader;
  throw new DormouseError(
    'IMAGE_INCOMPATIBLE',
    `${path} is ${key ? 'signed by a key that is not trusted here' : 'not signed'}, and this host would sign its pages ` +
      'with the increment: begin with an image without --incremental-from' +
      (key ? ', or trust the key (`dormouse key trust`)' : ''),
    { place: { path }, advice: 'Trust the key that signed it, or leave --incremental-from out.' },
  );
}

/** Reads the pages of those files of a chain that hold no hashes of them; to have a look at all of them, of all files, made of deltas too. */
async function readPages(reader: ImageReader, all: boolean, signal: AbortSignal | undefined): Promise<void> {
  const hashed = reader.files.every(({ hasPageHashes }) => hasPageHashes);
  if (hashed && !all) return;
  if (!hashed) reader.prepareHashes();
  await reader.naming(() =>
    runOverRange({
      total: reader.nrChunks,
      stride: chunksPerStep,
      lanes: encodingLanes,
      signal,
      task: (lane, first, count) => ({ step: 'hash', reader: reader.handle, lane, first, count }),
    }),
  );
}

export interface ParentOptions {
  /** The increment will be: then a key that is trusted here must have signed the parent. */
  readonly signed: boolean;
  /** The guest ends with the increment, which is nothing without its ancestors: all that counts of them is read, and synced. */
  readonly whole: boolean;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens an image with the hash of every page, for one to be taken on it. Where its files hold none their pages are read.
 * Errors: IMAGE_NOT_FOUND, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE, IMAGE_READ_FAILED (of it, or of an image that it needs
 * itself, which is named), NO_MEMORY, KEY_INVALID, CANCELLED.
 */
export async function openParent(
  path: string,
  { signed, whole, signal }: ParentOptions,
): Promise<ImageReader> {
  const reader = await ImageReader.open(path, { lanes: encodingLanes, pageHashes: true, mapOnly: !whole });
  try {
    if (signed) requireTrusted(reader);
    await readPages(reader, whole, signal);
    if (whole) for (const { name } of reader.files) syncFile(join(dirname(realPath(path)), name));
    return reader;
  } catch (thrown) {
    reader.close();
    throw thrown;
  }
}

/** The image that an increment is taken on. */
import { DormouseError } from '../errors.js';
import { ImageReader } from '../image/reader.js';
import { KeyStore } from '../trust/key_store.js';
import { chunksPerStep, encodingLanes, runOverRange } from '../worker/pool.js';

/** What this host signs it vouches for, and an increment's pages are mostly its parent's. */
function requireTrusted(reader: ImageReader): void {
  const key = reader.signer?.key;
  if (key && new KeyStore().isTrusted(key)) return;
  const { path } = reader;
  throw new DormouseError(
    'IMAGE_INCOMPATIBLE',
    `${path} is ${key ? 'signed by a key that is not trusted here' : 'not signed'}, and this host would sign its pages ` +
      'with the increment: begin with an image without --incremental-from' +
      (key ? ', or trust the key (`dormouse key trust`)' : ''),
    { place: { path } },
  );
}

/** Reads the pages of those files of a chain that hold no hashes of them. */
async function hashPages(reader: ImageReader, signal: AbortSignal | undefined): Promise<void> {
  if (reader.files.every(({ hasPageHashes }) => hasPageHashes)) return;
  reader.prepareHashes();
  await runOverRange({
    total: reader.nrChunks,
    stride: chunksPerStep,
    lanes: encodingLanes,
    signal,
    task: (lane, first, count) => ({ step: 'hash', reader: reader.handle, lane, first, count }),
  });
}

/**
 * Opens an image with the hash of every page, for one to be taken on it. Where its files hold none their pages are read.
 * `signed`: the increment will be; then a key that is trusted here must have signed the parent.
 * Errors: IMAGE_NOT_FOUND, IMAGE_DAMAGED, IMAGE_INCOMPATIBLE, IMAGE_READ_FAILED (of it, or of an image that it needs
 * itself, which is named), NO_MEMORY, KEY_INVALID, CANCELLED.
 */
export async function openParent(
  path: string,
  { signed, signal }: { readonly signed: boolean; readonly signal?: AbortSignal | undefined },
): Promise<ImageReader> {
  const reader = await ImageReader.open(path, { lanes: encodingLanes, pageHashes: true });
  try {
    if (signed) requireTrusted(reader);
    await hashPages(reader, signal);
    return reader;
  } catch (thrown) {
    reader.close();
    throw thrown;
  }
}

/** Chains of increments for tests. */
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter, parentOf, type CommittedImage, type WriterOptions } from '../../src/image/writer.js';
import { steps } from '../../src/worker/steps.js';
import { append, manifestFor, pvhDomain, type TestPage } from './images.js';

/** Opens an image with the hash of every page, hashing those that no file has. */
export async function openHashed(path: string): Promise<ImageReader> {
  const reader = await ImageReader.open(path, { lanes: 1, pageHashes: true });
  reader.prepareHashes();
  steps().hashStep(reader.handle, 0, 0, reader.nrChunks);
  return reader;
}

/** An increment of what was appended and is not in the parent as it is. */
export async function writeIncrement(
  path: string,
  parentPath: string,
  nrPfns: number,
  pages: readonly TestPage[],
  options: Partial<WriterOptions> = {},
): Promise<CommittedImage> {
  const reader = await openHashed(parentPath);
  try {
    const writer = await ImageWriter.create(path, {
      ...{ nrPfns, lanes: 1, consistency: 'suspend-point', skipUnchanged: true },
      ...options,
      parent: parentOf(reader),
    });
    append(writer, 0, pages);
    return await writer.commit(manifestFor(nrPfns, writer.counts(), { domain: pvhDomain }));
  } finally {
    reader.close();
  }
}

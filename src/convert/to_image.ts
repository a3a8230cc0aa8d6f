/** An image written once more, whole: of an increment with all that it takes from its ancestors. */
import { performance } from 'node:perf_hooks';
import type { Compression } from '../codec/compression.js';
import { writingTo } from '../errors.js';
import { ImageReader } from '../image/reader.js';
import { type CommittedImage, ImageWriter } from '../image/writer.js';
import { imageSigner } from '../trust/key_store.js';
import { chunksPerStep, encodingLanes, runOverRange } from '../worker/pool.js';
import { isTrusted, refuseHollow } from './fitness.js';
import type { ConvertOptions, ConvertProgress } from './progress.js';

export interface ToImageOptions extends ConvertOptions {
  /** Codes every page anew. Default: chunks of which most counts are taken as they are, shared with their file where that can be. */
  readonly compression?: Compression;
}

export interface WrittenImage extends CommittedImage {
  /** Bytes of chunks that lie in an ancestor's file too and take no room of their own. */
  readonly sharedBytes: number;
}

/** Most pfns that a step looks through for those without a frame. */
const pfnsPerStep = 2 ** 20;

async function copyPages(
  reader: ImageReader,
  writer: ImageWriter,
  { signal, onProgress, compression }: ToImageOptions,
): Promise<void> {
  const startedMs = performance.now();
  const common = { lanes: encodingLanes, signal };
  const handles = { reader: reader.handle, writer: writer.handle };
  const asStored = compression === undefined;
  const report = (phase: ConvertProgress['phase'], donePages: number): void => {
    const [counts, storedBytes] = [writer.counts(), writer.storedBytes()];
    const elapsedMs = performance.now() - startedMs;
    onProgress?.({ phase, donePages, totalPages: reader.nrPfns, storedBytes, counts, elapsedMs });
  };
  let done = 0;
  const copied = (count: number): void => {
    done += count;
    if (onProgress) report('pages', Math.round((done / reader.nrUnits) * reader.nrPfns));
  };
  await reader.naming(() =>
    runOverRange({
      ...{ ...common, total: reader.nrUnits, stride: chunksPerStep, done: copied },
      task: (lane, first, count) => ({ step: 'copy', ...handles, lane, first, count, asStored }),
    }),
  );
  await runOverRange({
    ...{ ...common, total: reader.nrPfns, stride: pfnsPerStep },
    task: (lane, first, count) => ({ step: 'copy-holes', ...handles, lane, first, count }),
  });
  if (onProgress) report('commit', reader.nrPfns);
}

/**
 * Writes an image that needs no other, of the same content. It is signed by this host's key only if a key trusted here signed the old one.
 * Each chunk is compared with its checksum. Errors: ImageWriter's, IMAGE_DAMAGED, IMAGE_READ_FAILED, IMAGE_NOT_RESTORABLE (unsigned and of
 * far more pfns than pages), KEY_INVALID, CANCELLED. On any of them no file appears.
 */
export function convertToImage(
  reader: ImageReader,
  path: string,
  { directIo, ...options }: ToImageOptions = {},
): Promise<WrittenImage> {
  return writingTo(path, async () => {
    refuseHollow(reader);
    const sign = isTrusted(reader) ? imageSigner() : null;
    const { nrPfns, counts, manifest } = reader;
    const { compression } = options;
    const writer = await ImageWriter.create(path, {
      ...{ nrPfns, lanes: encodingLanes, consistency: manifest.consistency, pageHashes: true },
      ...(sign && { sign }),
      ...(compression && { compression }),
      ...(directIo !== undefined && { directIo }),
    });
    try {
      await copyPages(reader, writer, options);
      const committed = await writer.commit({ ...manifest, pages: counts });
      return { ...committed, sharedBytes: writer.sharedBytes() };
    } catch (thrown) {
      await writer.abandon();
      throw thrown;
    }
  });
}

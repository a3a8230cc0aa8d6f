/** `point flatten`: a point that needs no other point's image any more. */
import { performance } from 'node:perf_hooks';
import { ImageReader } from '../image/reader.js';
import type { PointRecord } from '../store/record.js';
import { PointStore } from '../store/store.js';
import { laneCount } from '../worker/pool.js';
import { withoutGuest } from '../xenstream/stream_format.js';
import { convertToImage, type ToImageOptions, type WrittenImage } from './to_image.js';

export interface FlattenResult {
  readonly point: string;
  /** False: its image needed no other already, and nothing was written. */
  readonly flattened: boolean;
  /** Of its image. */
  readonly path: string;
  readonly fileBytes: number;
  /** Of the file, what takes no room of its own. */
  readonly sharedBytes: number;
  /** Images that no point needs now, which the next prune removes. */
  readonly unneededImages: number;
  readonly unneededBytes: number;
  readonly elapsedMs: number;
}

async function writeWhole(from: string, to: string, options: ToImageOptions): Promise<WrittenImage> {
  const reader = await ImageReader.open(from, { lanes: laneCount });
  try {
    return await convertToImage(reader, to, options);
  } finally {
    reader.close();
  }
}

/**
 * Gives the point that `typed` names an image of its own in its store. Errors: ImageReader's, POINT_NOT_FOUND, USAGE, those of a store;
 * OUTPUT_INVALID, NO_SPACE, IMAGE_WRITE_FAILED, KEY_INVALID, CANCELLED, IMAGE_NOT_RESTORABLE (unsigned and of far more pfns than pages). On
 * any of them the point is as it was.
 */
export async function flattenPoint(
  folder: string,
  domain: string,
  typed: string,
  options: ToImageOptions,
): Promise<FlattenResult> {
  const startedMs = performance.now();
  const points = await (await PointStore.open(folder, { create: false })).find(domain);
  const { id } = await points.find(typed);
  let sharedBytes = 0;
  const flat = await withoutGuest(() =>
    points.flatten(id, async (from, to, { image }) => {
      const written = await writeWhole(from, to, options);
      sharedBytes = written.sharedBytes;
      const { imageId, root, chainId, sequence, storedBytes } = written;
      return { ...image, imageId, root, chainId, sequence, storedBytes };
    }),
  );
  const record: PointRecord = flat ?? (await points.find(id));
  const { removed, freedBytes } = await points.collect({ dryRun: true });
  return {
    ...{ point: id, flattened: flat !== null, path: await points.imagePath(record) },
    ...{ fileBytes: record.image.storedBytes, sharedBytes },
    ...{ unneededImages: removed.length, unneededBytes: freedBytes },
    elapsedMs: performance.now() - startedMs,
  };
}

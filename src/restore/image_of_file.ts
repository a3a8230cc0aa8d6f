/** What is to be restored as an image: a file of `xl save` becomes a temporary one. */
import { closeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { refuseSavedDeviceModel } from '../domain/hvm.js';
import type { OperationOptions } from '../domain/progress.js';
import { detectFormat } from '../xenstream/detect.js';
import { convertFromXen } from '../convert/from_xen.js';
import { version } from '../version.js';

export type RestoredFormat = 'dormouse' | 'xl' | 'xl-gzip';

export interface ImageOptions extends OperationOptions {
  /** Folder for the temporary image, which takes as much room as the image of the guest; default: the file's own. */
  readonly scratchDir?: string;
}

interface Found {
  readonly path: string;
  readonly from: RestoredFormat;
  /** Sentences about what the file had and the image has not. */
  readonly notes: readonly string[];
}

/**
 * Calls `use` with the path of an image, for as long as it runs. A file of `xl save` is checked whole before the temporary image
 * is begun, which has no name: others may write in its folder. Errors: convertFromXen's, those of `use`.
 */
export async function withImageOf<T>(
  path: string,
  options: ImageOptions,
  use: (image: Found) => Promise<T>,
): Promise<T> {
  const format = await detectFormat(path);
  // What is no image is told by who reads images.
  if (format === 'dormouse' || format === 'unknown') return use({ path, from: 'dormouse', notes: [] });
  const { scratchDir = dirname(path), onProgress, signal } = options;
  const temporary = join(scratchDir, `${basename(path)}.restore`);
  const image = await convertFromXen(path, temporary, {
    tool: `dormouse ${version}`,
    accept: refuseSavedDeviceModel,
    nameless: true,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  });
  try {
    return await use({ path: image.path, from: format, notes: image.notes });
  } finally {
    if (image.descriptor !== null) closeSync(image.descriptor);
  }
}

/** What is to be restored as an image: a file of `xl save` becomes a temporary one. */
import { closeSync, openSync, unlinkSync } from 'node:fs';
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
 * is begun; it has a name only for the moment in which it is opened. Errors: convertFromXen's, those of `use`.
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
  const temporary = join(scratchDir, `.${basename(path)}.${process.pid}.restore`);
  const { notes } = await convertFromXen(path, temporary, {
    tool: `dormouse ${version}`,
    accept: refuseSavedDeviceModel,
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  });
  const fd = openSync(temporary, 'r');
  try {
    unlinkSync(temporary);
    // By this path other processes of the same user find it, as long as this one lives.
    return await use({ path: `/proc/${process.pid}/fd/${fd}`, from: format, notes });
  } finally {
    closeSync(fd);
  }
}

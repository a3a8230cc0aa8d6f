/** Says what is inside an image, and goes on as far as it can through damage. Read-only. */
import type { PageCounts } from '../pfn/counts.js';
import type { ImageHeader } from './frame.js';
import type { Manifest } from './manifest.js';

export interface Inspection {
  readonly path: string;
  readonly fileBytes: number;
  /** Null where the first page is damaged. */
  readonly header: ImageHeader | null;
  /** Null where the manifest is damaged or missing. Blobs inside are the state's bytes. */
  readonly manifest: Manifest | null;
  /** Hex; null where the footer is damaged. */
  readonly root: string | null;
  /** True if the footer is whole: the image was committed. */
  readonly committed: boolean;
  /** By class: the footer's, or what the chunks that could be read say (replaced pages count more than once then). */
  readonly counts: PageCounts;
  readonly chunks: { readonly count: number; readonly byKind: Readonly<Record<string, number>> };
  /** Pages in all chunks, also those replaced by a later copy. */
  readonly storedPages: number;
  readonly storedBodies: number;
  /** Bytes of memory the pages stand for, divided by the size of the file. */
  readonly ratio: number;
  /** Sentences about what could not be read. Empty for an image whose structures are whole. */
  readonly damage: readonly string[];
}

/** Errors: IMAGE_NOT_FOUND, IMAGE_READ_FAILED, IMAGE_INCOMPATIBLE (newer major). Damage is told in the result. */
export async function inspectImage(_path: string): Promise<Inspection> {
  await Promise.resolve();
  throw new Error('being written');
}

/** What an image must be to be written once more in another form. */
import { DormouseError } from '../errors.js';
import type { ImageReader } from '../image/reader.js';
import { memoryBytesOf } from '../pfn/counts.js';
import { pageBytes } from '../pfn/page_words.js';
import { mostPfnsFor } from '../pfn/proportion.js';
import { isTrustedKey } from '../trust/key_store.js';

/** KEY_INVALID. */
export const isTrusted = ({ signer }: ImageReader): boolean => isTrustedKey(signer?.key ?? null);

/** IMAGE_NOT_RESTORABLE for an image that nobody vouches for, and whose pfn space is far larger than its pages; KEY_INVALID. */
export function refuseHollow(reader: ImageReader): void {
  const pages = memoryBytesOf(reader.counts) / pageBytes;
  if (reader.nrPfns <= mostPfnsFor(pages) || isTrusted(reader)) return;
  throw new DormouseError(
    'IMAGE_NOT_RESTORABLE',
    `${reader.path}: no trusted key signed it, and it has ${reader.nrPfns} pfns for ${pages} pages`,
    { place: { path: reader.path } },
  );
}

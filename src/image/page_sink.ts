import type { PageCounts } from '../pfn/counts.js';
import type { WriterHandle } from '../handle.js';

/** Where the native steps put pages: an image, or a stream. */
export interface PageSink {
  /** Registry<image::Writer>. */
  readonly handle: WriterHandle;
  /** Pages by class as of now; a page that was put again counts once. */
  counts(): PageCounts;
  storedBytes(): number;
}

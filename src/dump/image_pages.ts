/** The pages of an image, in a file of another kind. */
import { performance } from 'node:perf_hooks';
import type { OperationOptions } from '../domain/progress.js';
import type { OutputFile } from '../image/output_file.js';
import type { ImageReader } from '../image/reader.js';
import { chunksPerStep, runOverRange } from '../worker/pool.js';
import { steps } from '../worker/steps.js';

export interface PagesPlan {
  /** Those with content one after the other by pfn; else each at its pfn. */
  readonly packed: boolean;
  /** Packed: a header of LiME's before each range of neighbouring pages. */
  readonly lime?: boolean;
  /** Where the guest has its own p2m, if it is to be written as if each pfn had the frame of that number. */
  readonly leafPfns: readonly number[];
}

/** Writes them next; each chunk is compared with its checksum. IMAGE_DAMAGED, IMAGE_READ_FAILED, NO_SPACE, IMAGE_WRITE_FAILED, CANCELLED. */
export async function writeImagePages(
  reader: ImageReader,
  output: OutputFile,
  { packed, leafPfns, lime = false }: PagesPlan,
  { signal, onProgress }: OperationOptions,
): Promise<void> {
  const startedMs = performance.now();
  const file = output.imagePages(reader.handle, packed, leafPfns, lime);
  let doneChunks = 0;
  const done = (count: number): void => {
    doneChunks += count;
    const { nrPfns: totalPages, counts } = reader;
    const donePages = Math.round((doneChunks / reader.nrChunks) * totalPages);
    const elapsedMs = performance.now() - startedMs;
    onProgress?.({ phase: 'pages', donePages, totalPages, storedBytes: output.bytes, counts, elapsedMs });
  };
  try {
    await reader.naming(() =>
      runOverRange({
        ...{ total: reader.nrChunks, stride: chunksPerStep, signal, done },
        task: (lane, first, count) => ({ step: 'page-file', file, lane, first, count }),
      }),
    );
  } finally {
    steps().pageFileRelease(file);
  }
}

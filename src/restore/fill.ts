/** Filling an empty domain from an image, whatever made the domain. */
import { performance } from 'node:perf_hooks';
import type { OperationOptions } from '../domain/progress.js';
import type { Builder } from '../host/contract.js';
import type { ImageReader } from '../image/reader.js';
import { chunksPerStep, runOverRange } from '../worker/pool.js';
import { requireAdmitted } from './proportion.js';
import { finishPvState, pvSourceOf } from './pv_guest.js';
import type { MemoryHandle } from '../handle.js';

/** Progress of one image through its placing. */
export class ProgressOfRestore {
  private readonly startedMs = performance.now();
  private doneChunks = 0;

  constructor(
    private readonly reader: ImageReader,
    private readonly options: OperationOptions,
  ) {}

  /** Chunks stand for pages in proportion: the two differ by what a chunk happens to hold. */
  advance(chunks: number): void {
    this.doneChunks += chunks;
    const share = this.doneChunks / Math.max(1, this.reader.nrUnits);
    this.options.onProgress?.({
      phase: 'pages',
      donePages: Math.round(share * this.reader.nrPfns),
      totalPages: this.reader.nrPfns,
      storedBytes: this.reader.storedBytes,
      counts: this.reader.counts,
      elapsedMs: performance.now() - this.startedMs,
    });
  }
}

export interface FillOptions extends OperationOptions {
  /** As `admittedPfns` says. */
  readonly mostPfns: number;
}

async function placePages(
  reader: ImageReader,
  memory: MemoryHandle,
  progress: ProgressOfRestore,
  signal: AbortSignal | undefined,
): Promise<void> {
  const work = {
    ...{ total: reader.nrUnits, stride: chunksPerStep, signal },
    task: (lane: number, first: number, count: number) =>
      ({ step: 'restore', memory, reader: reader.handle, lane, first, count }) as const,
    done: (count: number) => progress.advance(count),
  };
  await reader.naming(() => runOverRange(work));
}

/**
 * Fills an empty domain from an image, each chunk of which is compared with its checksum on the way. CONFIG_UNTRUSTED (more pfns than
 * are admitted), IMAGE_DAMAGED, NO_MEMORY, PAGE_TABLE_INVALID, CANCELLED; the domain is then to be destroyed.
 */
export async function fillDomain(
  builder: Builder,
  reader: ImageReader,
  options: FillOptions,
  progress: ProgressOfRestore,
): Promise<void> {
  const { manifest } = reader;
  requireAdmitted(reader, options.mostPfns);
  await builder.setGeometry(manifest.geometry);
  await builder.populate(reader.frameRuns());
  const memory = await builder.openMemory();
  try {
    await placePages(reader, memory.handle, progress, options.signal);
    if (manifest.domain.type === 'pv') await finishPvState(builder, pvSourceOf(reader), memory.handle);
    else await builder.setState(manifest.state);
  } finally {
    memory.close();
  }
  await builder.finish();
}

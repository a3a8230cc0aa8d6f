/** `point export`: a point as one file of its own, of ours or of another kind. */
import { performance } from 'node:perf_hooks';
import { writeImageCore } from '../dump/image_core.js';
import { writeImagePages } from '../dump/image_pages.js';
import { writingTo } from '../errors.js';
import { OutputFile } from '../image/output_file.js';
import { ImageReader } from '../image/reader.js';
import { memoryBytesOf, type PageCounts } from '../pfn/counts.js';
import type { PointRecord } from '../store/record.js';
import { PointStore } from '../store/store.js';
import { laneCount } from '../worker/pool.js';
import { withoutGuest } from '../xenstream/stream_format.js';
import type { ExportKind } from './export_kind.js';
import { refuseHollow } from './fitness.js';
import type { ConvertOptions } from './progress.js';
import { convertToImage, type ToImageOptions } from './to_image.js';
import { convertToXen } from './to_xen.js';

export interface ExportOptions extends ToImageOptions {
  readonly as: ExportKind;
}

interface Written {
  readonly fileBytes: number;
  /** 32 hex digits, of an image. */
  readonly imageId: string | null;
  readonly notes: readonly string[];
}

export interface ExportResult extends Written {
  readonly point: string;
  readonly path: string;
  readonly as: ExportKind;
  readonly name: string;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly elapsedMs: number;
}

/** Pages are written where they belong, in any order: past the page cache nothing would put neighbours together. */
const directIo = false;

async function writeFile(
  reader: ImageReader,
  path: string,
  as: 'core' | 'raw' | 'lime',
  options: ConvertOptions,
): Promise<Written> {
  refuseHollow(reader);
  const output = OutputFile.create(path, directIo);
  try {
    await writingTo(path, async () => {
      if (as === 'core') await writeImageCore(reader, output, options);
      else
        await writeImagePages(
          reader,
          output,
          { packed: as === 'lime', lime: as === 'lime', leafPfns: [] },
          options,
        );
      output.publish();
    });
    return { fileBytes: output.bytes, imageId: null, notes: [] };
  } finally {
    output.close();
  }
}

async function write(reader: ImageReader, path: string, { as, ...options }: ExportOptions): Promise<Written> {
  if (as === 'core' || as === 'raw' || as === 'lime') return await writeFile(reader, path, as, options);
  if (as === 'xl') {
    const { storedBytes, notes } = await convertToXen(reader.path, path, options);
    return { fileBytes: storedBytes, imageId: null, notes };
  }
  const { storedBytes, imageId } = await convertToImage(reader, path, options);
  return { fileBytes: storedBytes, imageId, notes: [] };
}

/** A file is of memory alone. */
function disksNote({ id, disks }: PointRecord): string[] {
  if (disks.kind === 'none' || disks.disks.length === 0) return [];
  const names = disks.disks.map(({ name, where }) => `${name} (${where})`).join(', ');
  return [`the disks of point ${id} are not in it: ${names}`];
}

/**
 * Writes a point, with all that it takes from the points before it, into a file of its own. No prune takes its images meanwhile. Errors:
 * ImageReader's, POINT_NOT_FOUND, USAGE, those of a store; OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE, IMAGE_WRITE_FAILED, KEY_INVALID,
 * CANCELLED; IMAGE_NOT_RESTORABLE (`xl`: taken of a paused guest; all: unsigned and of far more pfns than pages), IMAGE_INCOMPATIBLE
 * (`core`: registers that are not Xen's). On any of them no file appears.
 */
export async function exportPoint(
  folder: string,
  domain: string,
  typed: string,
  path: string,
  options: ExportOptions,
): Promise<ExportResult> {
  const startedMs = performance.now();
  const points = await (await PointStore.open(folder, { create: false })).find(domain);
  const record = await points.find(typed);
  return await withoutGuest(() =>
    points.reading([record], async ([image = '']) => {
      const reader = await ImageReader.open(image, { lanes: laneCount });
      try {
        const written = await write(reader, path, options);
        const { counts, manifest } = reader;
        const notes = [...written.notes, ...disksNote(record)];
        const elapsedMs = performance.now() - startedMs;
        return {
          ...{ point: record.id, path, as: options.as, name: manifest.domain.name, counts },
          ...{ memoryBytes: memoryBytesOf(counts), elapsedMs, ...written, notes },
        };
      } finally {
        reader.close();
      }
    }),
  );
}

/** `point diff`: what differs between two points of a domain. */
import type { Buffer } from 'node:buffer';
import { performance } from 'node:perf_hooks';
import type { OperationOptions } from '../domain/progress.js';
import { writingTo } from '../errors.js';
import { OutputFile } from '../image/output_file.js';
import { ImageReader } from '../image/reader.js';
import { PointStore } from '../store/store.js';
import { laneCount } from '../worker/pool.js';
import { type DiskDiff, diffDisks } from './disk_diff.js';
import { diffLinks, type LinkDiff } from './link_diff.js';
import { type ClassDiff, diffPages } from './page_diff.js';
import { diffStates, type StateDiff } from './state_diff.js';

export interface PointDiff extends StateDiff {
  readonly name: string;
  /** Ids of the points. */
  readonly from: string;
  readonly to: string;
  /** Of the larger one. */
  readonly nrPfns: number;
  readonly differingPages: number;
  readonly pages: readonly ClassDiff[];
  readonly links: LinkDiff;
  /** All that one of them holds. */
  readonly disks: readonly DiskDiff[];
  readonly elapsedMs: number;
}

export interface PointDiffOptions extends OperationOptions {
  /** A file to be written, which must not exist, and what is to be in it. */
  readonly map?: { readonly path: string; readonly draw: (diff: PointDiff) => Buffer };
}

type Found = Pick<PointDiff, 'nrPfns' | 'differingPages' | 'pages' | 'vcpus' | 'state' | 'links'>;

async function diffReaders(from: ImageReader, to: ImageReader, options: OperationOptions): Promise<Found> {
  const pages = await diffPages({ from, to }, options);
  const ofState = ({ manifest: { domain, state } }: ImageReader) => ({ type: domain.type, state });
  return {
    nrPfns: Math.max(from.nrPfns, to.nrPfns),
    differingPages: pages.reduce((sum, { count }) => sum + count, 0),
    pages,
    ...diffStates(ofState(from), ofState(to)),
    links: diffLinks(from.manifest.state.links, to.manifest.state.links),
  };
}

async function diffImages(
  [from = '', to = '']: readonly string[],
  options: OperationOptions,
): Promise<Found> {
  const was = await ImageReader.open(from, { lanes: laneCount, pageHashes: true });
  try {
    const is = await ImageReader.open(to, { lanes: laneCount, pageHashes: true });
    try {
      return await diffReaders(was, is, options);
    } finally {
      is.close();
    }
  } finally {
    was.close();
  }
}

/**
 * What differs between two points, which no prune takes away meanwhile; `domain`, `from` and `to` as users name them. Errors: as
 * ImageReader.open, POINT_NOT_FOUND, USAGE, CANCELLED, those of a store; with a map also OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE,
 * IMAGE_WRITE_FAILED, and no file then.
 */
export async function diffPoints(
  folder: string,
  domain: string,
  from: string,
  to: string,
  { map, ...options }: PointDiffOptions = {},
): Promise<PointDiff> {
  const startedMs = performance.now();
  const points = await (await PointStore.open(folder, { create: false })).find(domain);
  const [was, is] = [await points.find(from), await points.find(to)];
  // A bad path costs no comparison.
  const file = map && OutputFile.create(map.path, false);
  try {
    const found = await points.reading([was, is], (paths) => diffImages(paths, options));
    const elapsedMs = performance.now() - startedMs;
    const disks = diffDisks(was.disks, is.disks);
    const diff = { name: is.domain.name, from: was.id, to: is.id, ...found, disks, elapsedMs };
    if (map && file)
      await writingTo(map.path, () => {
        file.write(map.draw(diff));
        file.publish();
        return Promise.resolve();
      });
    return diff;
  } finally {
    file?.close();
  }
}

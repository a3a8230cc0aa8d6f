/** What verbs do with a store that a user named, and the domain and points that he named in it. */
import { keepersOf } from '../disks/keep.js';
import type { Point, Pruned } from './domain_points.js';
import type { Retention } from './retention.js';
import { PointStore } from './store.js';
import { type PointsReport, verifyPoints as verify } from './verify_points.js';

const opened = (folder: string, program?: string): Promise<PointStore> =>
  PointStore.open(folder, { create: false, keepers: keepersOf(program) });

export interface ListedPoint {
  readonly point: Point;
  /** Of its image. */
  readonly path: string;
}

/** Of one domain, or of all of them one after the other. POINT_NOT_FOUND and what a store may throw. */
export async function listPoints(folder: string, domain: string | undefined): Promise<ListedPoint[]> {
  const store = await opened(folder);
  const domains = domain === undefined ? await store.domains() : [await store.find(domain)];
  const listed: ListedPoint[] = [];
  for (const points of domains)
    for (const point of await points.list()) listed.push({ point, path: await points.imagePath(point) });
  return listed;
}

/** `also` names points as users do. POINT_NOT_FOUND for one that is not there. */
export async function prunePoints(
  folder: string,
  domain: string,
  {
    retention,
    also,
    dryRun,
    program,
  }: {
    readonly retention: Retention;
    readonly also: readonly string[];
    readonly dryRun: boolean;
    /** What keeps the disks of `command`. */
    readonly program?: string;
  },
): Promise<Pruned> {
  const points = await (await opened(folder, program)).find(domain);
  const ids: string[] = [];
  for (const typed of also) ids.push((await points.find(typed)).id);
  return await points.prune(retention, { dryRun, also: ids });
}

/** `changed`: whether it was not so before. */
export async function pinPoint(
  folder: string,
  domain: string,
  typed: string,
  pinned: boolean,
): Promise<{ point: string; changed: boolean }> {
  const points = await (await opened(folder)).find(domain);
  const { id } = await points.find(typed);
  return { point: id, changed: pinned ? await points.pin(id) : await points.unpin(id) };
}

export async function verifyPoints(
  folder: string,
  domain: string,
  {
    program,
    ...options
  }: { readonly readData: boolean; readonly signal?: AbortSignal; readonly program?: string },
): Promise<PointsReport> {
  return await verify(await (await opened(folder, program)).find(domain), options);
}

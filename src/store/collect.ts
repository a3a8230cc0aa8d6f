/**
 * Removes images that no point needs. A tombstone is published before anybody looks whether the image is needed after all, and
 * whoever begins to need one publishes a lease before looking for tombstones: so at least one of the two sees the other.
 */
import { randomBytes } from 'node:crypto';
import { leasedImages, leavingPoints } from './leases.js';
import type { Lineage } from './lineage.js';
import { type DomainNames, folders, imageOfTombstone } from './names.js';
import { encode } from './record.js';
import type { Shelf } from './shelf.js';

export interface Collectable {
  readonly shelf: Shelf;
  readonly names: DomainNames;
  readonly lineage: Lineage;
  /** The images of these points, but for those that went. STORE_DAMAGED. */
  readonly imagesOf: (ids: readonly string[]) => Promise<string[]>;
}

export interface Collected {
  /** Names of images that went, or would with `dryRun`. */
  readonly removed: readonly string[];
  readonly freedBytes: number;
}

/**
 * What points and leases name. Leases are read before records: who publishes or flattens a point puts what says so before dropping its
 * lease.
 */
interface Named {
  readonly ofPoints: readonly string[];
  readonly leased: ReadonlySet<string>;
}

async function namedImages(
  { shelf, names, imagesOf }: Collectable,
  without: ReadonlySet<string>,
): Promise<Named> {
  const leased = await leasedImages(shelf, names);
  const ids = await shelf.list(names.folder('points'));
  return { ofPoints: await imagesOf(ids.filter((id) => !without.has(id))), leased };
}

const same = (a: Named, b: Named): boolean =>
  a.ofPoints.join() === b.ofPoints.join() && [...a.leased].sort().join() === [...b.leased].sort().join();

/**
 * All images that must stay. STORE_DAMAGED if anything that is read cannot be: then nothing may be removed. What was missing only
 * because another tool forgot a point meanwhile is no damage.
 */
async function neededImages(
  from: Collectable,
  without: ReadonlySet<string> = new Set(),
): Promise<Set<string>> {
  const { lineage } = from;
  for (let named = await namedImages(from, without); ;) {
    try {
      const [points, held] = [
        await lineage.closure(named.ofPoints),
        await lineage.closure(named.leased, named.leased),
      ];
      return new Set([...points, ...held]);
    } catch (thrown) {
      const now = await namedImages(from, without);
      if (same(named, now)) throw thrown;
      named = now;
      lineage.forget();
    }
  }
}

/** Besides the last one a return counts as long as there is a point from before it: what went on from a forgotten point follows from it. */
async function dropPositions(shelf: Shelf, names: DomainNames): Promise<void> {
  const positions = await shelf.list(names.folder('positions'));
  const [oldest] = await shelf.list(names.folder('points'));
  for (const name of positions.slice(0, -1))
    if (oldest === undefined || name < oldest) await shelf.delete(names.of('positions', name));
}

/** Which image a point that went was flattened to. Points are there before they are flattened, so what is looked for first is theirs. */
async function dropFlat(shelf: Shelf, names: DomainNames): Promise<void> {
  const flat = await shelf.list(names.folder('flat'));
  if (flat.length === 0) return;
  const points = new Set(await shelf.list(names.folder('points')));
  for (const id of flat) if (!points.has(id)) await shelf.delete(names.of('flat', id));
}

/** Tombstones of the dead and what they were about to forget, which nobody drops else. */
async function dropDead(shelf: Shelf, names: DomainNames): Promise<void> {
  await leavingPoints(shelf, names);
  for (const name of await shelf.list(names.folder('tombstones')))
    if (names.isOfDead(name)) await shelf.delete(names.of('tombstones', name));
}

/**
 * Removes what no point and no lease needs, and what killed tools left. STORE_DAMAGED, with nothing removed, if a record, a lease or an
 * image that is needed cannot be read. With `dryRun` nothing is, and the points `without` count as gone.
 */
export async function collect(
  from: Collectable,
  { dryRun = false, without }: { readonly dryRun?: boolean; readonly without?: ReadonlySet<string> } = {},
): Promise<Collected> {
  const { shelf, names } = from;
  const images = await shelf.list(names.folder('images'));
  const needed = await neededImages(from, without);
  // The youngest first: no image is ever there without those that it needs.
  const unneeded = images.filter((name) => !needed.has(name)).reverse();
  if (dryRun) return { removed: unneeded, freedBytes: await bytesOf(shelf, names, unneeded) };
  await dropDead(shelf, names);
  await dropPositions(shelf, names);
  await dropFlat(shelf, names);
  for (const folder of folders) await shelf.sweep(names.folder(folder), needed);
  if (unneeded.length === 0) return { removed: [], freedBytes: 0 };
  return await bury(from, unneeded);
}

async function bytesOf(shelf: Shelf, names: DomainNames, images: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const image of images) bytes += (await shelf.size(names.of('images', image))) ?? 0;
  return bytes;
}

async function bury(from: Collectable, images: readonly string[]): Promise<Collected> {
  const { shelf, names, lineage } = from;
  const random = randomBytes(6).toString('hex');
  const stone = (image: string): string => names.tombstone(image, random);
  const removed: string[] = [];
  let freedBytes = 0;
  try {
    for (const image of images) await shelf.putIfAbsent(stone(image), encode({ version: 1 }));
    const needed = await neededImages(from);
    for (const image of images.filter((name) => !needed.has(name))) {
      freedBytes += await bytesOf(shelf, names, [image]);
      if (await shelf.delete(names.of('images', image))) removed.push(image);
    }
    lineage.forget();
    return { removed, freedBytes };
  } finally {
    for (const image of images) await shelf.delete(stone(image));
  }
}

/** Images of which somebody is about to remove the file. To be read after one's lease is published. */
export async function buriedImages(shelf: Shelf, names: DomainNames): Promise<Set<string>> {
  return new Set((await shelf.list(names.folder('tombstones'))).map(imageOfTombstone));
}

/**
 * Removes images that no point needs. A tombstone is published before anybody looks whether the image is needed after all, and
 * whoever begins to need one publishes a lease before looking for tombstones: so at least one of the two sees the other.
 */
import { randomBytes } from 'node:crypto';
import { isDead } from './holder.js';
import { leasedImages } from './leases.js';
import type { Lineage } from './lineage.js';
import { type DomainNames, folders, holderOfTombstone, imageOfTombstone, tombstoneName } from './names.js';
import { decode, encode, pointRecord } from './record.js';
import type { Shelf } from './shelf.js';

export interface Collected {
  /** Names of images that went, or would with `dryRun`. */
  readonly removed: readonly string[];
  readonly freedBytes: number;
}

/**
 * All images that must stay. Leases are read before records: who publishes a point puts its record before dropping its lease.
 * STORE_DAMAGED if anything that is read cannot be: then nothing may be removed.
 */
async function neededImages(
  shelf: Shelf,
  names: DomainNames,
  lineage: Lineage,
  without: ReadonlySet<string> = new Set(),
): Promise<Set<string>> {
  const leased = await leasedImages(shelf, names);
  const ofPoints: string[] = [];
  for (const id of await shelf.list(names.folder('points'))) {
    if (without.has(id)) continue;
    const name = names.of('points', id);
    const bytes = await shelf.get(name);
    if (bytes) ofPoints.push(decode(pointRecord, bytes, name).image.name);
  }
  const [points, held] = [await lineage.closure(ofPoints), await lineage.closure(leased, leased)];
  return new Set([...points, ...held]);
}

/** Tombstones of the dead, which nobody drops else. */
async function dropDead(shelf: Shelf, names: DomainNames): Promise<void> {
  for (const name of await shelf.list(names.folder('tombstones')))
    if (isDead(holderOfTombstone(name))) await shelf.delete(names.of('tombstones', name));
}

/**
 * Removes what no point and no lease needs, and what killed tools left. STORE_DAMAGED, with nothing removed, if a record, a lease or an
 * image that is needed cannot be read. With `dryRun` nothing is, and the points `without` count as gone.
 */
export async function collect(
  shelf: Shelf,
  names: DomainNames,
  lineage: Lineage,
  { dryRun = false, without }: { readonly dryRun?: boolean; readonly without?: ReadonlySet<string> } = {},
): Promise<Collected> {
  const images = await shelf.list(names.folder('images'));
  const needed = await neededImages(shelf, names, lineage, without);
  // The youngest first: no image is ever there without those that it needs.
  const unneeded = images.filter((name) => !needed.has(name)).reverse();
  if (dryRun) return { removed: unneeded, freedBytes: await bytesOf(shelf, names, unneeded) };
  await dropDead(shelf, names);
  for (const folder of folders) await shelf.sweep(names.folder(folder), needed);
  if (unneeded.length === 0) return { removed: [], freedBytes: 0 };
  return await bury(shelf, names, lineage, unneeded);
}

async function bytesOf(shelf: Shelf, names: DomainNames, images: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const image of images) bytes += (await shelf.size(names.of('images', image))) ?? 0;
  return bytes;
}

async function bury(
  shelf: Shelf,
  names: DomainNames,
  lineage: Lineage,
  images: readonly string[],
): Promise<Collected> {
  const random = randomBytes(6).toString('hex');
  const stone = (image: string): string => names.of('tombstones', tombstoneName(image, random));
  const removed: string[] = [];
  let freedBytes = 0;
  try {
    for (const image of images) await shelf.putIfAbsent(stone(image), encode({ version: 1 }));
    const needed = await neededImages(shelf, names, lineage);
    for (const image of images.filter((name) => !needed.has(name))) {
      freedBytes += await bytesOf(shelf, names, [image]);
      if (await shelf.delete(names.of('images', image))) removed.push(image);
      lineage.forget(image);
    }
    return { removed, freedBytes };
  } finally {
    for (const image of images) await shelf.delete(stone(image));
  }
}

/** Images of which somebody is about to remove the file. To be read after one's lease is published. */
export async function buriedImages(shelf: Shelf, names: DomainNames): Promise<Set<string>> {
  return new Set((await shelf.list(names.folder('tombstones'))).map(imageOfTombstone));
}

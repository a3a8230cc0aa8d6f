/**
 * Removes images, and disks, that no point needs. A tombstone is published before anybody looks whether the image is needed after all, and
 * whoever begins to need one publishes a lease before looking for tombstones: so at least one of the two sees the other.
 */
import { randomBytes } from 'node:crypto';
import { forget, type Keepers } from '../disks/keep.js';
import { diskNote } from '../disks/kept.js';
import { asDormouseError, DormouseError, type ErrorCode } from '../errors.js';
import { leasedImages, leavingPoints } from './leases.js';
import type { Lineage } from './lineage.js';
import { buriedName, diskNameOf, type DomainNames, folders, pointOfFile, isDiskNote } from './names.js';
import { decode, diskNamesOf, encode, type PointRecord } from './record.js';
import type { Shelf } from './shelf.js';

export interface Collectable {
  readonly shelf: Shelf;
  readonly names: DomainNames;
  readonly lineage: Lineage;
  /** Of these points, but for those that went. STORE_DAMAGED. */
  readonly recordsOf: (ids: readonly string[]) => Promise<PointRecord[]>;
  readonly keepers: Keepers;
}

export interface Collected {
  /** Names of images that went, or would with `dryRun`. */
  readonly removed: readonly string[];
  /** What these take. */
  readonly freedBytes: number;
  /** Names of the disks that went with them, or would. */
  readonly removedDisks: readonly string[];
  /** Disks that no point needs and that could not be let go, with why. */
  readonly stuck: readonly string[];
}

/**
 * What points and leases name. Leases are read before records: who publishes or flattens a point puts what says so before dropping its
 * lease.
 */
interface Named {
  readonly ofPoints: readonly string[];
  readonly leased: ReadonlySet<string>;
  /** Of points. */
  readonly disks: ReadonlySet<string>;
  /** The images that there are. */
  readonly there: ReadonlySet<string>;
}

async function namedImages(
  { shelf, names, recordsOf }: Collectable,
  without: ReadonlySet<string>,
): Promise<Named> {
  const there = new Set(await shelf.list(names.folder('images')));
  const leased = await leasedImages(shelf, names);
  const ids = await shelf.list(names.folder('points'));
  const records = await recordsOf(ids.filter((id) => !without.has(id)));
  return {
    ofPoints: records.map(({ image }) => image.name),
    leased,
    disks: new Set(records.flatMap(diskNamesOf)),
    there,
  };
}

const same = (a: Named, b: Named): boolean =>
  a.ofPoints.join() === b.ofPoints.join() &&
  [...a.leased].sort().join() === [...b.leased].sort().join() &&
  [...a.there].join() === [...b.there].join();

interface Needed {
  readonly images: ReadonlySet<string>;
  /** A disk is its point's alone; of one that is being taken, or read, the image is leased. */
  readonly hasDisk: (name: string) => boolean;
}

/**
 * All that must stay. STORE_DAMAGED if anything that is read cannot be: then nothing may be removed. What was missing only
 * because another tool forgot a point, or removed images, meanwhile is no damage.
 */
async function whatIsNeeded(from: Collectable, without: ReadonlySet<string> = new Set()): Promise<Needed> {
  const { lineage } = from;
  for (let named = await namedImages(from, without); ;) {
    // Of one that went since, whose lease comes too late, what it needed may be gone too.
    lineage.forget(named.there);
    try {
      const [points, held] = [
        await lineage.closure(named.ofPoints),
        // It is not there yet; or of a point that was forgotten before, whose reader has yet to find that out.
        await lineage.closure(named.leased, true),
      ];
      const { disks } = named;
      const atWork = new Set([...named.leased].map(pointOfFile));
      return {
        images: new Set([...points, ...held]),
        hasDisk: (name) => disks.has(name) || atWork.has(pointOfFile(name)),
      };
    } catch (thrown) {
      const now = await namedImages(from, without);
      if (same(named, now)) throw thrown;
      named = now;
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

/** Names of images and of disks. */
interface Unneeded {
  readonly images: readonly string[];
  readonly disks: readonly string[];
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
  const [images, disks] = [await shelf.list(names.folder('images')), await shelf.list(names.folder('disks'))];
  const needed = await whatIsNeeded(from, without);
  const unneeded = {
    // The youngest first: no image is ever there without those that it needs.
    images: images.filter((name) => !needed.images.has(name)).reverse(),
    disks: disks.filter((name) => !needed.hasDisk(name)),
  };
  if (dryRun) {
    const freedBytes = await bytesOf(shelf, names, unneeded.images);
    return { removed: unneeded.images, freedBytes, removedDisks: unneeded.disks, stuck: [] };
  }
  await dropDead(shelf, names);
  await dropPositions(shelf, names);
  await dropFlat(shelf, names);
  for (const folder of folders) await shelf.sweep(names.folder(folder), needed.images);
  if (unneeded.images.length + unneeded.disks.length === 0)
    return { removed: [], freedBytes: 0, removedDisks: [], stuck: [] };
  return await bury(from, unneeded);
}

async function bytesOf(shelf: Shelf, names: DomainNames, images: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const image of images) bytes += (await shelf.size(names.of('images', image))) ?? 0;
  return bytes;
}

async function bury(from: Collectable, { images, disks }: Unneeded): Promise<Collected> {
  const { shelf, names, lineage } = from;
  const random = randomBytes(6).toString('hex');
  const stones = [...images, ...disks].map((name) => names.tombstone(name, random));
  const removed: string[] = [];
  let freedBytes = 0;
  try {
    for (const stone of stones) await shelf.putIfAbsent(stone, encode({ version: 1 }));
    const needed = await whatIsNeeded(from);
    const gone = await removeDisks(
      from,
      disks.filter((name) => !needed.hasDisk(name)),
    );
    for (const image of images.filter((name) => !needed.images.has(name))) {
      freedBytes += await bytesOf(shelf, names, [image]);
      if (await shelf.delete(names.of('images', image))) removed.push(image);
    }
    lineage.forget();
    return { removed, freedBytes, ...gone };
  } finally {
    for (const stone of stones) await shelf.delete(stone);
  }
}

/** One that is kept elsewhere is let go there first: as long as its note is there, somebody knows of it. */
async function letGo({ shelf, names, keepers }: Collectable, name: string): Promise<void> {
  if (!isDiskNote(name)) return;
  const bytes = await shelf.get(names.of('disks', name));
  if (!bytes) return;
  const { kind, disk } = decode(diskNote, bytes, name);
  const point = pointOfFile(name);
  if (diskNameOf(point, disk.name, 'note') !== name)
    throw new DormouseError('STORE_DAMAGED', `${name} is the note of another disk`);
  forget(keepers, { kind, domain: names.uuid, point, disk });
}

/** Of a disk whose note is wrong nothing can be let go: it stays, and nothing else waits for it. */
const leftAlone: readonly ErrorCode[] = ['COMMAND_FAILED', 'USAGE', 'STORE_DAMAGED', 'STORE_INVALID'];

async function removeDisks(
  from: Collectable,
  disks: readonly string[],
): Promise<Pick<Collected, 'removedDisks' | 'stuck'>> {
  const { shelf, names } = from;
  const [removedDisks, stuck] = [[] as string[], [] as string[]];
  for (const name of disks) {
    try {
      await letGo(from, name);
    } catch (thrown) {
      const { message, advice, code } = asDormouseError(thrown);
      if (!leftAlone.includes(code)) throw thrown;
      stuck.push(`${name}: ${message}. ${advice}`);
      continue;
    }
    if (await shelf.delete(names.of('disks', name))) removedDisks.push(name);
  }
  return { removedDisks, stuck };
}

/** Images and disks of which somebody is about to remove the file. To be read after one's lease is published. */
export async function buriedNames(shelf: Shelf, names: DomainNames): Promise<Set<string>> {
  return new Set((await shelf.list(names.folder('tombstones'))).map(buriedName));
}

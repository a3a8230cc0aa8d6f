/** The points of one domain in a store: reading, publishing, pinning, forgetting and collecting them. */
import { randomBytes } from 'node:crypto';
import { forget, type Keepers, keepersOf, type OfPoint } from '../disks/keep.js';
import type { DiskWay } from '../disks/way.js';
import { DormouseError } from '../errors.js';
import type { DomainDisk } from '../host/contract.js';
import { buriedNames, collect, type Collectable, type Collected } from './collect.js';
import { type Holder, thisProcess } from './holder.js';
import { ImageLease, Leaving, leavingPoints } from './leases.js';
import { lineOf } from './line.js';
import { Lineage, type ReadDescent } from './lineage.js';
import { diskNameOf, DomainNames, flatNameOf, imageNameOf } from './names.js';
import { isPointId, nextPointId, selectPoint, timeTyped } from './point_id.js';
import { decode, diskNamesOf, encode, flatRecord, pointRecord, type PointRecord } from './record.js';
import { keep, type Kept, type Retention } from './retention.js';
import { Returns } from './returns.js';
import type { Shelf } from './shelf.js';
import { TakingDisks } from './taking_disks.js';

export interface Point extends PointRecord {
  readonly pinned: boolean;
}

/** Where a new point's image is to be written. */
export interface BegunPoint {
  readonly id: string;
  readonly imageName: string;
  readonly imagePath: string;
  /** Whether it may be an increment of the image that was asked for. */
  readonly parentStays: boolean;
}

/** A disk of a point. */
export interface HeldDisk extends OfPoint {
  /** Its content, or the note of one that is kept elsewhere. */
  readonly file: string;
}

export interface Pruned extends Collected {
  readonly forgotten: readonly string[];
  readonly kept: readonly Kept[];
}

/** What is told of a point whose image nobody may rely on. */
const leaves = ({ id }: Pick<PointRecord, 'id'>): DormouseError =>
  new DormouseError(
    'POINT_NOT_FOUND',
    `point ${id} is being pruned or was just flattened, or its images are damaged`,
  );

export interface PointsOptions {
  readonly holder?: Holder;
  /** How images tell what they need, where that is not by their files. */
  readonly readDescent?: ReadDescent;
  readonly keepers?: Keepers;
}

export class DomainPoints {
  readonly keepers: Keepers;
  readonly #names: DomainNames;
  readonly #lineage: Lineage;
  readonly #returns: Returns;
  /** Records never change: each is read once. Of a flattened point it is looked every time which image it has. */
  readonly #records = new Map<string, PointRecord>();

  constructor(
    private readonly shelf: Shelf,
    readonly uuid: string,
    { holder = thisProcess, readDescent, keepers = keepersOf() }: PointsOptions = {},
  ) {
    this.#names = new DomainNames(uuid, holder);
    this.#returns = new Returns(shelf, this.#names);
    this.keepers = keepers;
    this.#lineage = readDescent ? new Lineage(readDescent) : Lineage.of(shelf, this.#names);
  }

  async #record(id: string): Promise<PointRecord | null> {
    const record = await this.#asTaken(id);
    return record && (await this.#asItIs(record));
  }

  /** With the image that it was flattened to. */
  async #asItIs(record: PointRecord): Promise<PointRecord> {
    if (record.image.sequence === 0) return record;
    const name = this.#names.of('flat', record.id);
    const bytes = await this.shelf.get(name);
    if (!bytes) return record;
    const { of, image } = decode(flatRecord, bytes, `${this.shelf.description}/${name}`);
    return of === record.image.imageId ? { ...record, image } : record;
  }

  async #asTaken(id: string): Promise<PointRecord | null> {
    const known = this.#records.get(id);
    if (known) return known;
    const name = this.#names.of('points', id);
    const bytes = await this.shelf.get(name);
    if (!bytes) return null;
    const record = decode(pointRecord, bytes, `${this.shelf.description}/${name}`, 2);
    if (record.id !== id || record.domain.uuid !== this.uuid)
      throw new DormouseError('STORE_DAMAGED', `${name} is the record of another point`);
    this.#records.set(id, record);
    return record;
  }

  /** Ascending. STORE_DAMAGED, IMAGE_READ_FAILED. */
  async ids(): Promise<string[]> {
    return (await this.shelf.list(this.#names.folder('points'))).filter(isPointId);
  }

  /** Ascending. STORE_DAMAGED, STORE_INVALID, IMAGE_READ_FAILED. */
  async list(): Promise<Point[]> {
    const pinned = new Set(await this.shelf.list(this.#names.folder('pins')));
    const ids = await this.ids();
    const there = new Set(ids);
    for (const id of this.#records.keys()) if (!there.has(id)) this.#records.delete(id);
    const records = await this.#recordsOf(ids);
    return records.map((record) => ({ ...record, pinned: pinned.has(record.id) }));
  }

  /** One that went meanwhile is not there. */
  async #recordsOf(ids: readonly string[]): Promise<PointRecord[]> {
    const flat = new Set(await this.shelf.list(this.#names.folder('flat')));
    const records: PointRecord[] = [];
    for (const id of ids) {
      const record = await this.#asTaken(id);
      if (record) records.push(flat.has(id) ? await this.#asItIs(record) : record);
    }
    return records;
  }

  /** Without a look at all the others, of which a store may have thousands. */
  async #lastId(): Promise<string | undefined> {
    return (await this.shelf.list(this.#names.folder('points'))).findLast(isPointId);
  }

  async latest(): Promise<PointRecord | null> {
    const id = await this.#lastId();
    return id === undefined ? null : this.#record(id);
  }

  /** That of now, but after all that happened to the domain: the order of names is what says what goes on from what. */
  async #nextId(nowMs: number): Promise<string> {
    const last = [await this.#lastId(), (await this.#returns.ids()).at(-1)];
    const known = last.filter((id) => id !== undefined).sort();
    return nextPointId(nowMs, known.at(-1) ?? null);
  }

  /** The point that the domain goes on from: the last one, or the one that it was taken back to since. Null: none, or it went. */
  async current(): Promise<PointRecord | null> {
    const back = (await this.#returns.ids()).at(-1);
    const last = await this.#lastId();
    if (back === undefined || (last !== undefined && last > back))
      return last === undefined ? null : this.#record(last);
    const to = await this.#returns.get(back);
    return to && this.#record(to.point);
  }

  /** The domain was taken back to that point: what it does from now on goes on from there. */
  async wentBack(point: string, nowMs: number): Promise<void> {
    const id = await this.#nextId(nowMs);
    await this.#returns.put({ id, point });
  }

  /**
   * The points that lead from one to another, both among them, the oldest first. Those that were forgotten are passed over. Null if the
   * first is no ancestor of the second. STORE_DAMAGED, STORE_INVALID, IMAGE_READ_FAILED.
   */
  async line(from: string, to: string): Promise<PointRecord[] | null> {
    const returns = await this.#returns.list();
    const records = new Map((await this.list()).map((point) => [point.id, point]));
    const links = [...records.values()].map(({ id, parent, domain }) => ({
      id,
      parent,
      domid: domain.domid,
    }));
    const line = lineOf(links, returns, from, to);
    return line && line.map((id) => records.get(id)).filter((record) => record !== undefined);
  }

  /** By what a user wrote. POINT_NOT_FOUND, USAGE. */
  async find(typed: string): Promise<PointRecord> {
    const beforeMs = timeTyped(typed);
    const id =
      beforeMs === null ? selectPoint(await this.ids(), typed, this.uuid) : await this.#lastUntil(beforeMs);
    const record = await this.#record(id);
    if (!record) throw new DormouseError('POINT_NOT_FOUND', `point ${id} went meanwhile`);
    return record;
  }

  async #lastUntil(ms: number): Promise<string> {
    const found = (await this.list()).filter(({ takenAt }) => Date.parse(takenAt) <= ms).at(-1);
    if (found) return found.id;
    throw new DormouseError(
      'POINT_NOT_FOUND',
      `${this.uuid} has no point of ${new Date(ms).toISOString()} or before`,
    );
  }

  /** The path of its image. */
  async imagePath({ image }: Pick<PointRecord, 'image'>): Promise<string> {
    return this.shelf.imagePath(this.#names.of('images', image.name));
  }

  /** The disks that it holds, and where the store has each, if it does. */
  async heldDisks({ id, disks }: PointRecord): Promise<HeldDisk[]> {
    if (disks.kind === 'none') return [];
    const { kind } = disks;
    const what = kind === 'reflink' ? 'content' : 'note';
    const held: HeldDisk[] = [];
    for (const disk of disks.disks) {
      const name = this.#names.of('disks', diskNameOf(id, disk.name, what));
      held.push({ kind, domain: this.uuid, point: id, disk, file: await this.shelf.imagePath(name) });
    }
    return held;
  }

  /** The image and all that must be there for it to be read, by name. STORE_DAMAGED. */
  async needs(imageName: string): Promise<Set<string>> {
    return this.#lineage.closure([imageName]);
  }

  /** Of all images of this domain, those that no point needs among them. */
  async usedBytes(): Promise<number> {
    let bytes = 0;
    for (const name of await this.shelf.list(this.#names.folder('images')))
      bytes += (await this.shelf.size(this.#names.of('images', name))) ?? 0;
    return bytes;
  }

  /** For as long as somebody writes to or reads from this domain's points. */
  lease(): ImageLease {
    return new ImageLease(this.shelf, this.#names);
  }

  /**
   * A name for the next point, leased with the image that it may be an increment of. That one stays only if nobody was about to
   * remove it, or what it needs, before the lease was published, and all of it is there. `held`: what else stays leased.
   */
  async begin(
    lease: ImageLease,
    nowMs: number,
    parentImage: string | null,
    held: readonly string[] = [],
  ): Promise<BegunPoint> {
    const id = await this.#nextId(nowMs);
    const imageName = imageNameOf(id);
    const holding = lease.hold([imageName, ...(parentImage === null ? [] : [parentImage]), ...held]);
    // What it needs never changes, and is read while the disk is waited for; whether that stays is looked at after.
    const reading = parentImage === null ? null : this.needs(parentImage).catch(() => null);
    try {
      await holding;
    } finally {
      await reading;
    }
    const parentStays = parentImage !== null && (await this.#stays(parentImage));
    const imagePath = await this.shelf.imagePath(this.#names.of('images', imageName));
    return { id, imageName, imagePath, parentStays };
  }

  /** Those of a point that was begun, of a domain that has these. */
  async takeDisks({ id }: BegunPoint, way: DiskWay, disks: readonly DomainDisk[]): Promise<TakingDisks> {
    const place = { shelf: this.shelf, names: this.#names, keepers: this.keepers };
    return TakingDisks.begin(place, id, way, disks);
  }

  /**
   * Runs `use` with the paths of these points' images, which stay meanwhile with all that they need. POINT_NOT_FOUND if one is about to
   * go, STORE_DAMAGED if another image has its name.
   */
  async reading<T>(records: readonly PointRecord[], use: (paths: string[]) => Promise<T>): Promise<T> {
    const lease = this.lease();
    try {
      return await use(await this.#held(lease, records));
    } finally {
      // What `use` made is there; a lease that stays is dropped once this process is dead.
      await lease.drop().catch(() => undefined);
    }
  }

  /**
   * Paths of images that are leased now, and so is what has the names of `also`. A point that is flattened meanwhile, which happens once,
   * has another image.
   */
  async #held(
    lease: ImageLease,
    records: readonly PointRecord[],
    also: readonly string[] = [],
  ): Promise<string[]> {
    await lease.hold([...records.map(({ image }) => image.name), ...also]);
    try {
      for (const record of records) await this.requireStays(record);
    } catch (thrown) {
      const now = await this.#recordsOf(records.map(({ id }) => id));
      const moved = now.some(({ image }, i) => image.name !== records[i]?.image.name);
      if (now.length < records.length || !moved) throw thrown;
      return await this.#held(lease, now, also);
    }
    return await Promise.all(records.map((record) => this.imagePath(record)));
  }

  /**
   * Of one whose image is leased now: it, what it needs and its disks stay. POINT_NOT_FOUND if somebody is about to remove any of it,
   * STORE_DAMAGED.
   */
  async requireStays(record: PointRecord): Promise<void> {
    try {
      if (!(await this.#remains(record.image.name))) throw leaves(record);
      await this.#lineage.require(record.image, `point ${record.id}`);
      await this.#requireDisks(record);
    } catch (thrown) {
      // Images of a point that was forgotten meanwhile may be gone, which is no damage.
      const isThere = await this.shelf.get(this.#names.of('points', record.id));
      throw isThere ? thrown : leaves(record);
    }
  }

  /** As `#remains`, of its disks. */
  async #requireDisks(record: PointRecord): Promise<void> {
    const needed = diskNamesOf(record);
    if (needed.length === 0) return;
    const buried = await buriedNames(this.shelf, this.#names);
    const there = new Set(await this.shelf.list(this.#names.folder('disks')));
    if (needed.some((name) => buried.has(name))) throw leaves(record);
    for (const missing of needed.filter((name) => !there.has(name)))
      throw new DormouseError('STORE_DAMAGED', `disk ${missing} is missing, and point ${record.id} needs it`);
  }

  async #stays(image: string): Promise<boolean> {
    try {
      return await this.#remains(image);
    } catch (thrown) {
      if (thrown instanceof DormouseError && thrown.code === 'STORE_DAMAGED') return false;
      throw thrown;
    }
  }

  /** False if somebody is about to remove it or what it needs, who did not see a lease. STORE_DAMAGED. */
  async #remains(image: string): Promise<boolean> {
    const buried = await buriedNames(this.shelf, this.#names);
    // After the tombstones: one that was dropped meanwhile left no image.
    const there = new Set(await this.shelf.list(this.#names.folder('images')));
    this.#lineage.forget(there);
    const needed = await this.#lineage.closure([image]);
    return [...needed].every((name) => there.has(name) && !buried.has(name));
  }

  /** The commit of a point, whose image is there. OUTPUT_EXISTS if another tool took the same id; else a failure leaves no image. */
  async publish(record: PointRecord): Promise<void> {
    const name = this.#names.of('points', record.id);
    const isNew = await this.shelf
      .putIfAbsent(name, encode(pointRecord.parse(record)))
      .catch(async (thrown: unknown) => {
        await this.#withdraw(record).catch(() => undefined);
        throw thrown;
      });
    if (!isNew) throw new DormouseError('OUTPUT_EXISTS', `there is a point ${record.id} already`);
    this.#records.set(record.id, record);
  }

  /**
   * After a publication that failed: its record may be there all the same, and goes before the image. If it cannot be removed both
   * stay, and are a whole point.
   */
  async #withdraw(record: PointRecord): Promise<void> {
    await this.shelf.delete(this.#names.of('points', record.id));
    await this.shelf.delete(this.#names.of('images', record.image.name));
    for (const held of await this.heldDisks(record)) forget(this.keepers, held);
    for (const name of diskNamesOf(record)) await this.shelf.delete(this.#names.of('disks', name));
  }

  /**
   * Gives a point an image of its own, which `write` makes of the one at `from` and which needs no other: images that only it was built on
   * can go. Null if its image needs no other already. The old one is leased until the new one is the point's for good; images that are built
   * on the old one go on needing it. POINT_NOT_FOUND, STORE_DAMAGED, and what `write` throws: the point is then as it was.
   */
  async flatten(
    id: string,
    write: (from: string, to: string, record: PointRecord) => Promise<Omit<PointRecord['image'], 'name'>>,
  ): Promise<PointRecord | null> {
    const record = await this.find(id);
    const name = flatNameOf(id, randomBytes(6).toString('hex'));
    const lease = this.lease();
    let [written, flattened] = [false, false];
    try {
      const [from = ''] = await this.#held(lease, [record], [name]);
      // It was flattened meanwhile, or needs no other.
      if (from !== (await this.imagePath(record)) || (await this.needs(record.image.name)).size === 1)
        return null;
      const to = await this.shelf.imagePath(this.#names.of('images', name));
      const image = { ...(await write(from, to, record)), name };
      written = true;
      flattened = await this.#replaceImage(record, image);
      return flattened ? { ...record, image } : null;
    } finally {
      await lease.drop().catch(() => undefined);
      // Somebody may have begun to read it: it goes as any other that nobody needs.
      if (written && !flattened) await this.collect().catch(() => undefined);
    }
  }

  /** False if another tool flattened it meanwhile. */
  async #replaceImage(record: PointRecord, image: PointRecord['image']): Promise<boolean> {
    const name = this.#names.of('flat', record.id);
    const bytes = encode(flatRecord.parse({ version: 1, of: record.image.imageId, image }));
    const isNew = await this.shelf.putIfAbsent(name, bytes).catch(async (thrown: unknown) => {
      // It may be there all the same and not be on disk: the old image is still leased, and is the point's again.
      const there = await this.shelf.get(name).catch(() => null);
      if (there?.equals(bytes)) await this.shelf.delete(name).catch(() => undefined);
      throw thrown;
    });
    if (!isNew) return false;
    if (await this.shelf.get(this.#names.of('points', record.id))) return true;
    await this.shelf.delete(name);
    throw leaves(record);
  }

  /** False if it was so already. POINT_NOT_FOUND. */
  async pin(id: string): Promise<boolean> {
    if (!(await this.shelf.putIfAbsent(this.#names.of('pins', id), encode({ version: 1 })))) return false;
    // Pinned first, looked then: whoever forgets points says so first, and looks for pins then.
    const leaves = (await leavingPoints(this.shelf, this.#names)).has(id);
    if (!leaves && (await this.shelf.get(this.#names.of('points', id)))) return true;
    await this.unpin(id);
    throw new DormouseError('POINT_NOT_FOUND', `point ${id} is being pruned, or went`);
  }

  /** False if it was not pinned. */
  async unpin(id: string): Promise<boolean> {
    return this.shelf.delete(this.#names.of('pins', id));
  }

  /** From then on they are no points; their images go with the next collection, unless others need them. Pinned ones stay. */
  async forget(ids: readonly string[]): Promise<string[]> {
    if (ids.length === 0) return [];
    const leaving = new Leaving(this.shelf, this.#names);
    await leaving.announce(ids);
    try {
      const pinned = new Set(await this.shelf.list(this.#names.folder('pins')));
      const forgotten: string[] = [];
      for (const id of ids.filter((one) => !pinned.has(one))) {
        this.#records.delete(id);
        if (await this.shelf.delete(this.#names.of('points', id))) forgotten.push(id);
      }
      return forgotten;
    } finally {
      await leaving.drop();
    }
  }

  #collectable(): Collectable {
    return {
      ...{ shelf: this.shelf, names: this.#names, lineage: this.#lineage, keepers: this.keepers },
      recordsOf: (ids) => this.#recordsOf(ids),
    };
  }

  /** As `collect` of collect.ts. */
  async collect(options: { readonly dryRun?: boolean } = {}): Promise<Collected> {
    return collect(this.#collectable(), options);
  }

  /** What the points of a chain and all that they need take, and the largest image of it. STORE_DAMAGED. */
  async chainBytes(chainId: string): Promise<{ wholeBytes: number; chainBytes: number }> {
    const ofChain = (await this.list()).filter(({ image }) => image.chainId === chainId);
    let [wholeBytes, chainBytes] = [0, 0];
    for (const name of await this.#lineage.closure(ofChain.map(({ image }) => image.name))) {
      const bytes = (await this.shelf.size(this.#names.of('images', name))) ?? 0;
      chainBytes += bytes;
      wholeBytes = Math.max(wholeBytes, bytes);
    }
    return { wholeBytes, chainBytes };
  }

  /** Keeps what the rules say, forgets the rest and `also`, and removes the images that nobody needs any more. */
  async prune(
    retention: Retention,
    { dryRun = false, also = [] }: { readonly dryRun?: boolean; readonly also?: readonly string[] } = {},
  ): Promise<Pruned> {
    const points = await this.list();
    const candidates = points.map(({ id, takenAt, pinned }) => ({ id, pinned, takenAt: new Date(takenAt) }));
    const kept = keep(candidates, retention);
    const goes = (point: Kept): boolean =>
      point.by.length === 0 || (also.includes(point.id) && !point.by.includes('pinned'));
    const leaving = kept.filter(goes).map(({ id }) => id);
    const stays = kept.filter((point) => !goes(point));
    if (dryRun) return { forgotten: leaving, kept: stays, ...(await this.#wouldGo(leaving)) };
    const forgotten = await this.forget(leaving);
    return { forgotten, kept: stays, ...(await this.collect()) };
  }

  /** What a collection would remove if these points were forgotten. */
  async #wouldGo(leaving: readonly string[]): Promise<Collected> {
    return collect(this.#collectable(), { dryRun: true, without: new Set(leaving) });
  }
}

/** A store: a folder of points of any number of domains. */
import { type Keepers, keepersOf } from '../disks/keep.js';
import { DormouseError } from '../errors.js';
import { DomainPoints } from './domain_points.js';
import { FolderShelf } from './folder_shelf.js';
import { isDomainFolder, storeMarker } from './names.js';
import { decode, encode, storeRecord } from './record.js';
import type { Shelf } from './shelf.js';

export interface OpenOptions {
  readonly create: boolean;
  /** Of disks that are not in the store itself. */
  readonly keepers?: Keepers;
}

export class PointStore {
  readonly #points = new Map<string, DomainPoints>();

  private constructor(
    readonly shelf: Shelf,
    private readonly keepers: Keepers,
  ) {}

  /**
   * `create`: makes one of a folder that is empty or not there. STORE_INVALID for a folder of other things and for a store of a newer
   * version, STORE_DAMAGED, IMAGE_READ_FAILED, IMAGE_WRITE_FAILED, NO_SPACE.
   */
  static async open(folder: string, options: OpenOptions): Promise<PointStore> {
    return PointStore.on(new FolderShelf(folder), options);
  }

  static async on(shelf: Shelf, { create, keepers = keepersOf() }: OpenOptions): Promise<PointStore> {
    const found = await shelf.get(storeMarker);
    if (found) {
      const { version } = decode(storeRecord, found, `${shelf.description}/${storeMarker}`);
      if (version === 1) return new PointStore(shelf, keepers);
    }
    const isEmpty = (await shelf.list('')).length === 0;
    if (!create || !isEmpty)
      throw new DormouseError(
        'STORE_INVALID',
        `${shelf.description} is no store of points` + (create ? ', and not empty' : ''),
        { place: { path: shelf.description } },
      );
    await shelf.putIfAbsent(storeMarker, encode({ format: 'dormouse store', version: 1 }));
    return new PointStore(shelf, keepers);
  }

  points(uuid: string): DomainPoints {
    const points = this.#points.get(uuid) ?? new DomainPoints(this.shelf, uuid, { keepers: this.keepers });
    this.#points.set(uuid, points);
    return points;
  }

  /** Those that have points, by uuid. */
  async domains(): Promise<DomainPoints[]> {
    const uuids = (await this.shelf.list('')).filter(isDomainFolder);
    return uuids.map((uuid) => this.points(uuid));
  }

  /**
   * By uuid, or by the name that the domain had at its last point, which need not exist any more. POINT_NOT_FOUND also if two had
   * that name.
   */
  async find(domain: string): Promise<DomainPoints> {
    if (isDomainFolder(domain)) return this.points(domain);
    const named: DomainPoints[] = [];
    for (const points of await this.domains())
      if ((await points.latest())?.domain.name === domain) named.push(points);
    const [found, second] = named;
    const where = this.shelf.description;
    if (second)
      throw new DormouseError(
        'POINT_NOT_FOUND',
        `${named.length} domains of ${where} were called '${domain}': give the uuid of one`,
        { details: named.map(({ uuid }) => uuid) },
      );
    if (!found) throw new DormouseError('POINT_NOT_FOUND', `${where} has no points of '${domain}'`);
    return found;
  }
}

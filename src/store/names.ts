/** Where things of a domain are on the shelf. */
import { lowerUuid } from '../uuid.js';
import type { Holder } from './holder.js';

export const storeMarker = 'dormouse-store.json';

export const isDomainFolder = (name: string): boolean => lowerUuid.test(name);

export const folders = [
  'points',
  'images',
  'pins',
  'leases',
  'tombstones',
  'leaving',
  'positions',
  'flat',
] as const;
export type Folder = (typeof folders)[number];

/** Names of one domain's things; each folder has one kind. */
export class DomainNames {
  constructor(
    readonly uuid: string,
    private readonly holder: Holder,
  ) {}

  folder(kind: Folder): string {
    return `${this.uuid}/${kind}`;
  }
  of(kind: Folder, name: string): string {
    return `${this.folder(kind)}/${name}`;
  }

  /** What somebody says for as long as he lives is known by who he is and a number of its own. */
  note(kind: Folder, random: string): string {
    return this.of(kind, `${this.holder.name}~${random}`);
  }
  /** A tombstone belongs to one image and one collector: each of two drops its own alone. */
  tombstone(image: string, random: string): string {
    return this.of('tombstones', `${image}~${this.holder.name}~${random}`);
  }
  /** Whether who made it, a note or a tombstone, is dead for certain. */
  isOfDead(lastPart: string): boolean {
    return this.holder.isDead(lastPart.split('~').at(-2) ?? '');
  }
}

export const imageNameOf = (pointId: string): string => `${pointId}.dmi`;

/** Of a flattened point; another one each time, as a name never comes to mean another image. */
export const flatNameOf = (pointId: string, random: string): string => `${pointId}.${random}.dmi`;

export const imageOfTombstone = (name: string): string => name.split('~')[0] ?? '';

/** Where things of a domain are on the shelf. */
import { basename } from 'node:path';
import { thisHolder } from './holder.js';

export const storeMarker = 'dormouse-store.json';

const uuidForm = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u;
export const isDomainFolder = (name: string): boolean => uuidForm.test(name);

export const folders = ['points', 'images', 'pins', 'leases', 'tombstones', 'leaving'] as const;
export type Folder = (typeof folders)[number];

/** Names of one domain's things; each folder has one kind. */
export class DomainNames {
  constructor(readonly uuid: string) {}

  folder(kind: Folder): string {
    return `${this.uuid}/${kind}`;
  }
  of(kind: Folder, name: string): string {
    return `${this.folder(kind)}/${name}`;
  }
}

export const imageNameOf = (pointId: string): string => `${pointId}.dmi`;
export const pointIdOfImage = (name: string): string => basename(name, '.dmi');

/** A lease is known by who holds it and a number of its own. */
export const noteName = (random: string): string => `${thisHolder()}~${random}`;
/** A tombstone belongs to one image and one collector: each of two drops its own alone. */
export const tombstoneName = (image: string, random: string): string =>
  `${image}~${thisHolder()}~${random}`;

export const holderOfNote = (name: string): string => name.split('~')[0] ?? '';
export const imageOfTombstone = (name: string): string => name.split('~')[0] ?? '';
export const holderOfTombstone = (name: string): string => name.split('~')[1] ?? '';

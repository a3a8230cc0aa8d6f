/** How disks are kept with a point: what a user says. */
import { resolve } from 'node:path';
import { DormouseError } from '../errors.js';

export const keepingKinds = ['reflink', 'lvm-thin', 'command'] as const;
export type KeepingKind = (typeof keepingKinds)[number];

export type DiskWay =
  | { readonly kind: 'none' }
  | { readonly kind: 'reflink' | 'lvm-thin' }
  | { readonly kind: 'command'; readonly program: string };

export const noDisks: DiskWay = { kind: 'none' };

/** `reflink`, `lvm-thin`, `command:PROGRAM` or `none`. USAGE. */
export function parseDiskWay(typed: string): DiskWay {
  if (typed === 'none' || typed === 'reflink' || typed === 'lvm-thin') return { kind: typed };
  const program = /^command:(.+)$/su.exec(typed)?.[1];
  if (program !== undefined) return { kind: 'command', program: resolve(program) };
  throw new DormouseError(
    'USAGE',
    `'${typed}' is no way to keep disks: reflink, lvm-thin, command:PROGRAM or none`,
  );
}

/** What a point says of the disks that it holds. */
import * as z from 'zod';
import { keepingKinds } from './way.js';

const count = z.int().nonnegative();

/** Part of the names of files and volumes. */
export const deviceName = z.string().regex(/^[0-9A-Za-z][0-9A-Za-z_-]{0,30}$/u);

export const keptDisk = z.object({
  /** As the guest's configuration calls it. */
  name: deviceName,
  /** Of the file or device that it was taken of. */
  path: z.string().startsWith('/'),
  bytes: count,
  /** What it is kept as: a file of the store's `disks`, a volume `group/name`, or the name that the program was given. */
  where: z.string().regex(/^[0-9A-Za-z][0-9A-Za-z_.+/-]{0,250}$/u),
});
export type KeptDisk = z.output<typeof keptDisk>;

/** What a disk that is kept outside the store is called there; nothing of another name is ever put back or let go. */
export const outsideName = (domain: string, point: string, device: string): string =>
  `dormouse-${domain}-${point}-${device}`;

const held = z.object({
  kind: z.enum(keepingKinds),
  /** Of `command`: what kept them. It is not run because a record names it, but because its user does. */
  program: z.string().nullable(),
  /** What of the pause it took. */
  tookMs: z.number().nonnegative(),
  /** Those that the domain could write to; the others are not kept. */
  disks: z.array(keptDisk).max(1024),
});
export type HeldDisks = z.output<typeof held>;

export const keptDisks = z.discriminatedUnion('kind', [z.object({ kind: z.literal('none') }), held]);
export type KeptDisks = z.output<typeof keptDisks>;

/** Of a disk that is kept outside the store: it is there before the disk is taken, so that it can be let go whatever happens. */
export const diskNote = z.object({
  version: z.literal(1),
  kind: z.enum(['lvm-thin', 'command']),
  disk: keptDisk,
});
export type DiskNote = z.output<typeof diskNote>;

/** What a store says of a point. The record is what makes the point: an image without one is nobody's. */
import { Buffer } from 'node:buffer';
import * as z from 'zod';
import { DormouseError } from '../errors.js';
import { checkpointModes } from '../domain/checkpoint_mode.js';
import { keptDisks } from '../disks/kept.js';
import { domainTypes } from '../domain/type.js';
import { consistencies } from '../image/format.js';
import { diskNameOf, isDomainFolder } from './names.js';
import { isPointId } from './point_id.js';

const count = z.int().nonnegative();
const hex = (digits: number) => z.string().regex(new RegExp(`^[0-9a-f]{${digits}}$`, 'u'));
const id = z.string().refine(isPointId, 'no point id');
export const imageName = z.string().regex(/^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$/u);

export const pointReasons = ['protect', 'checkpoint', 'before-rollback'] as const;

const image = z.object({
  /** Of its file; the files that it needs itself are named in it. */
  name: imageName,
  imageId: hex(32),
  root: hex(64),
  chainId: hex(32),
  sequence: count,
  consistency: z.enum(consistencies),
  storedBytes: count,
  memoryBytes: count,
  /** Pages that are not as in the point before; all of a full one, unless it was flattened. */
  changedPages: count,
});

export const pointRecord = z.object({
  /** 2: of one that holds disks, so that who does not know of disks does not take it for one without. */
  version: z.literal([1, 2]),
  id,
  takenAt: z.iso.datetime({ precision: 3 }),
  domain: z.object({
    uuid: z.string().refine(isDomainFolder, 'no uuid'),
    name: z.string(),
    domid: count,
    type: z.enum(domainTypes),
    vcpus: count,
  }),
  hostKind: z.enum(['xen', 'embedded']),
  image,
  /** The point that it goes on from: what was the state before. */
  parent: id.nullable(),
  reason: z.enum(pointReasons),
  mode: z.enum(checkpointModes),
  pauseMs: z.number().nonnegative(),
  elapsedMs: z.number().nonnegative(),
  /** That nothing is kept of disks is said, too. */
  disks: keptDisks,
  /** Why its instant is none to go back to in place; empty where nothing stood against it. */
  unfit: z.string().default(''),
});
export type PointRecord = z.output<typeof pointRecord>;

/**
 * The point was flattened: its image is this one, which needs no other. `of` is the image that its record names, so that what is left of a
 * point that went says nothing of another one.
 */
export const flatRecord = z.object({ version: z.literal(1), of: hex(32), image });

/** Of the store's `disks`: what it has of the point's. */
export function diskNamesOf({ id: point, disks }: Pick<PointRecord, 'id' | 'disks'>): string[] {
  if (disks.kind === 'none') return [];
  const what = disks.kind === 'reflink' ? 'content' : 'note';
  return disks.disks.map(({ name }) => diskNameOf(point, name, what));
}

/** Images that must stay while somebody works with them: the one that is being written among them. */
export const leaseRecord = z.object({ version: z.literal(1), images: z.array(imageName) });

/** Points that somebody is about to forget. */
export const leavingRecord = z.object({ version: z.literal(1), points: z.array(id) });

/** The domain was taken back to that point. */
export const positionRecord = z.object({ version: z.literal(1), point: id });

export const storeRecord = z.object({ format: z.literal('dormouse store'), version: z.int().positive() });

export const encode = (value: unknown): Buffer => Buffer.from(`${JSON.stringify(value, null, 1)}\n`);

/** STORE_DAMAGED for what is no such record; `name` says which. STORE_INVALID for one of a version after `newest`. */
export function decode<T>(schema: z.ZodType<T>, bytes: Buffer, name: string, newest = 1): T {
  const damaged = (why: string, cause?: unknown): DormouseError =>
    new DormouseError('STORE_DAMAGED', `${name} cannot be read: ${why}`, { cause });
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (thrown) {
    throw damaged('it is not JSON', thrown);
  }
  const version = (value as { version?: unknown } | null)?.version;
  if (typeof version === 'number' && version > newest)
    throw new DormouseError(
      'STORE_INVALID',
      `${name} is of version ${version}; this dormouse knows ${newest}`,
    );
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw damaged(z.prettifyError(parsed.error).replaceAll('\n', ' '));
  return parsed.data;
}

/** Disks of a point that is restored: new files for the new domain, beside those that the old one may still write to. */
import { open, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { needsProgram, putBack } from '../disks/keep.js';
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { DomainPoints } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';

export interface DiskChoice {
  /** Where new disks are made of those of the point; without it the domain gets those of its configuration. */
  readonly diskDir?: string;
  /** Those of its configuration are as they are to be. */
  readonly keepDisks?: boolean;
}

/** By the names of the devices. */
export type NewDisks = ReadonlyMap<string, string>;

async function create(path: string, bytes: number): Promise<void> {
  const file = await open(path, 'wx', 0o600).catch((thrown: unknown) => {
    const { code, message } = thrown as NodeJS.ErrnoException;
    const why = code === 'EEXIST' ? 'OUTPUT_EXISTS' : 'OUTPUT_INVALID';
    throw new DormouseError(why, `disk ${path} cannot be made: ${message}`, {
      cause: thrown,
      place: { path },
    });
  });
  try {
    await file.truncate(bytes);
  } finally {
    await file.close();
  }
}

/** USAGE where it has to be said what becomes of the disks. */
export function requireChoice({ id, disks }: PointRecord, { diskDir, keepDisks = false }: DiskChoice): void {
  const has = disks.kind !== 'none' && disks.disks.length > 0;
  if (diskDir !== undefined && !has)
    throw new DormouseError('USAGE', `point ${id} holds no disks that could be made in ${diskDir}`);
  if (!has || diskDir !== undefined || keepDisks) return;
  throw new DormouseError(
    'USAGE',
    `point ${id} holds disks, and what its domain wrote to them since is in them now`,
    {
      advice:
        'Say `--disk-dir FOLDER` to get new ones of the point, or `--keep-disks` to go on with them as they are.',
    },
  );
}

/** Makes them, runs `use`, and removes them if that fails. HOST_LACKS, OUTPUT_EXISTS, OUTPUT_INVALID, USAGE, COMMAND_FAILED. */
export async function withNewDisks<T>(
  host: Host,
  points: DomainPoints,
  record: PointRecord,
  { diskDir, name }: { readonly diskDir: string; readonly name: string },
  use: (disks: NewDisks) => Promise<T>,
): Promise<T> {
  if (!host.configWithDisks)
    throw new DormouseError('HOST_LACKS', 'the configurations of this host cannot be given other disks');
  if (record.disks.kind !== 'none' && needsProgram(record.disks.kind, points.keepers))
    throw new DormouseError(
      'USAGE',
      `the disks of point ${record.id} were kept by ${String(record.disks.program)}`,
      {
        advice: 'Say what puts them back: `--disks command:PROGRAM`.',
      },
    );
  const made = new Map<string, string>();
  try {
    for (const held of await points.heldDisks(record)) {
      const path = resolve(join(diskDir, `${name}.${held.disk.name}.raw`));
      await create(path, held.disk.bytes);
      made.set(held.disk.name, path);
      await putBack(points.keepers, held, path, held.file);
    }
    return await use(made);
  } catch (thrown) {
    for (const path of made.values()) await unlink(path).catch(() => undefined);
    throw thrown;
  }
}

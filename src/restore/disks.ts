/** Disks of a point that is restored: new files for the new domain, beside those that the old one may still write to. */
import { open, unlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fault, type Keepers, needsProgram, putBack } from '../disks/keep.js';
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { DomainPoints, HeldDisk } from '../store/domain_points.js';
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
  } catch (thrown) {
    await unlink(path).catch(() => undefined);
    const { code, message } = thrown as NodeJS.ErrnoException;
    throw new DormouseError(
      code === 'ENOSPC' ? 'NO_SPACE' : 'OUTPUT_INVALID',
      `disk ${path} cannot have ${bytes} bytes: ${message}`,
      { cause: thrown, place: { path } },
    );
  } finally {
    await file.close();
  }
}

/** In `diskDir` itself, whatever a record says that the domain is called. USAGE. */
function pathOf(diskDir: string, name: string, device: string): string {
  if (!name.includes('/') && !name.startsWith('.') && !name.includes('\0'))
    return resolve(join(diskDir, `${name}.${device}.raw`));
  throw new DormouseError('USAGE', `no disk can be called after a domain '${name}'`, {
    advice: 'Give the new domain another name: `--name NAME`.',
  });
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

/** Empty ones, by the names of the devices; what is made is in `made` even if it fails. */
async function makeNew(
  diskDir: string,
  name: string,
  held: readonly HeldDisk[],
  made: Map<string, string>,
): Promise<void> {
  for (const { disk } of held) {
    const path = pathOf(diskDir, name, disk.name);
    await create(path, disk.bytes);
    made.set(disk.name, path);
  }
}

/** What is made for a new domain with new disks. */
export interface ForNewDisks<T> {
  /** Throws what else stands against it: copies may take long. The disks are there, and empty. */
  check(disks: NewDisks): Promise<void>;
  make(disks: NewDisks): Promise<T>;
}

/**
 * Makes disks and the domain that gets them; if that fails neither is left. HOST_LACKS, OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE, STORE_DAMAGED,
 * USAGE, COMMAND_FAILED, and what `domain` throws.
 */
export async function withNewDisks<T>(
  host: Host,
  points: DomainPoints,
  record: PointRecord,
  { diskDir, name }: { readonly diskDir: string; readonly name: string },
  domain: ForNewDisks<T>,
): Promise<T> {
  const { keepers } = points;
  requireHow(host, record, keepers);
  const held = await points.heldDisks(record);
  for (const one of held) {
    const wrong = await fault(keepers, one, one.file);
    if (wrong !== null) throw new DormouseError('STORE_DAMAGED', `point ${record.id}: ${wrong}`);
  }
  const made = new Map<string, string>();
  try {
    await makeNew(diskDir, name, held, made);
    await domain.check(made);
    for (const one of held) await putBack(keepers, one, made.get(one.disk.name) ?? '', one.file);
    return await domain.make(made);
  } catch (thrown) {
    for (const path of made.values()) await unlink(path).catch(() => undefined);
    throw thrown;
  }
}

/** HOST_LACKS, USAGE. */
function requireHow(host: Host, { id, disks }: PointRecord, keepers: Keepers): void {
  if (!host.configWithDisks)
    throw new DormouseError('HOST_LACKS', 'the configurations of this host cannot be given other disks');
  if (disks.kind === 'none' || !needsProgram(disks.kind, keepers)) return;
  throw new DormouseError('USAGE', `the disks of point ${id} were kept by ${String(disks.program)}`, {
    advice: 'Say what puts them back: `--disks command:PROGRAM`.',
  });
}

/** The ways in which disks are kept, by their names. */
import { stat } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import { command, commandCopy, requireKeeper } from './command.js';
import type { Copy, ToCopy } from './copy.js';
import { type KeptDisk, outsideName } from './kept.js';
import { lvmBack, lvmBytes, lvmCopy, lvmForget } from './lvm.js';
import { reflinkBack, reflinkCopy } from './reflink.js';
import { run as runProgram, type Run } from './run.js';
import type { KeepingKind } from './way.js';

/** What keeps disks that are not in the store itself. */
export interface Keepers {
  readonly run: Run;
  /** What the user says keeps those of `command`; a program that only a record names is not run. */
  readonly program: string | null;
}

export const keepersOf = (program: string | null = null): Keepers => ({ run: runProgram, program });

/** A disk of a domain's point. */
export interface OfPoint {
  readonly kind: KeepingKind;
  /** Its uuid. */
  readonly domain: string;
  readonly point: string;
  readonly disk: KeptDisk;
}

/** STORE_DAMAGED for one that is called as no disk of that point is, whatever a record or a note says of it. */
function requireOwn({ kind, domain, point, disk }: OfPoint): void {
  if (kind === 'reflink') return;
  const own = outsideName(domain, point, disk.name);
  const named = kind === 'lvm-thin' ? /^\w[\w.+-]*\/(.+)$/su.exec(disk.where)?.[1] : disk.where;
  if (named === own) return;
  throw new DormouseError(
    'STORE_DAMAGED',
    `disk ${disk.name} of point ${point}: '${disk.where}' is none that dormouse kept for it`,
  );
}

export const needsProgram = (kind: KeepingKind, { program }: Keepers): boolean =>
  kind === 'command' && program === null;

function requireProgram({ program }: Keepers, { name }: KeptDisk): string {
  if (program !== null) return program;
  throw new DormouseError('USAGE', `disk ${name} is kept by a program of yours`, {
    advice: 'Say which one it is: `--disks command:PROGRAM`.',
  });
}

/** `path`: of the new, empty file of a `reflink`. HOST_LACKS, USAGE, COMMAND_FAILED. */
export async function beginCopy(
  keepers: Keepers,
  kind: KeepingKind,
  wanted: ToCopy,
  path: string,
): Promise<Copy> {
  if (kind === 'reflink') return await reflinkCopy(wanted, path);
  if (kind === 'lvm-thin') return await lvmCopy(keepers.run, wanted);
  const { name } = wanted.disk;
  const program = requireProgram(keepers, { name, path: wanted.disk.path, bytes: 0, where: wanted.where });
  await requireKeeper(program);
  return await commandCopy(keepers.run, program, wanted);
}

/**
 * `to`, a file or device that is as large, gets its content. `file`: of one that is in the store. STORE_DAMAGED, COMMAND_FAILED, USAGE,
 * IMAGE_READ_FAILED, IMAGE_WRITE_FAILED.
 */
export async function putBack(keepers: Keepers, of: OfPoint, to: string, file: string): Promise<void> {
  const { kind, domain, disk } = of;
  requireOwn(of);
  if (kind === 'reflink') await reflinkBack(to, file, disk);
  else if (kind === 'lvm-thin') await lvmBack(keepers.run, to, disk);
  else {
    const program = requireProgram(keepers, disk);
    command(keepers.run, 'put-back', { program, domain, disk: { ...disk, path: to } });
  }
}

/** Of one that is kept elsewhere; nothing to do where it is gone. STORE_DAMAGED, COMMAND_FAILED, USAGE. */
export function forget(keepers: Keepers, of: OfPoint): void {
  const { kind, domain, disk } = of;
  requireOwn(of);
  if (kind === 'lvm-thin') lvmForget(keepers.run, disk);
  if (kind === 'command')
    command(keepers.run, 'forget', { program: requireProgram(keepers, disk), domain, disk });
}

/** What is wrong with it; null if nothing is. STORE_DAMAGED, COMMAND_FAILED, USAGE. */
export async function fault(keepers: Keepers, of: OfPoint, file: string): Promise<string | null> {
  const { kind, domain, disk } = of;
  const { name, where, bytes } = disk;
  requireOwn(of);
  if (kind === 'command') {
    command(keepers.run, 'check', { program: requireProgram(keepers, disk), domain, disk });
    return null;
  }
  const size = kind === 'lvm-thin' ? lvmBytes(keepers.run, disk) : await sizeIfThere(file);
  if (size === null) return `disk ${name}: ${where} is gone`;
  return size === bytes ? null : `disk ${name}: ${where} has ${size} bytes instead of ${bytes}`;
}

async function sizeIfThere(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw thrown;
  }
}

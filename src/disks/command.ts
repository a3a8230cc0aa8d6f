/** Disks that a program of the user keeps: `PROGRAM ACTION DOMAIN DEVICE PATH WHERE`. */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import type { Copy, ToCopy } from './copy.js';
import type { KeptDisk } from './kept.js';
import type { Run } from './run.js';
import { bytesOf } from './size.js';

/** `check`: whether it is there. */
type Action = 'take' | 'put-back' | 'forget' | 'check';

/** The guest stands while a disk is taken. */
const timeoutsMs: Readonly<Record<Action, number>> = {
  take: 10_000,
  'put-back': 3_600_000,
  forget: 60_000,
  check: 60_000,
};

export interface Commanded {
  readonly program: string;
  readonly domain: string;
  readonly disk: KeptDisk;
}

/** COMMAND_FAILED. */
export function command(run: Run, action: Action, { program, domain, disk }: Commanded): void {
  const { name, path, where, bytes } = disk;
  run(program, [action, domain, name, path, where], {
    timeoutMs: timeoutsMs[action],
    env: { DORMOUSE_DISK_BYTES: String(bytes) },
  });
}

/** USAGE. */
export async function requireKeeper(program: string): Promise<void> {
  try {
    await access(program, constants.X_OK);
    if ((await stat(program)).isFile()) return;
  } catch {
    // Told below.
  }
  throw new DormouseError('USAGE', `${program} is no program that could keep disks`);
}

export async function commandCopy(run: Run, program: string, { domain, disk, where }: ToCopy): Promise<Copy> {
  const { name, path } = disk;
  const kept: KeptDisk = { name, path, bytes: await bytesOf(path), where };
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    disk: kept,
    ready: nothing,
    take: () => command(run, 'take', { program, domain, disk: kept }),
    settle: nothing,
    close: nothing,
  };
}

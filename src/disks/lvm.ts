/** Disks that are thin volumes of LVM: kept as snapshots of their pool. */
import { Buffer } from 'node:buffer';
import { readFile, stat } from 'node:fs/promises';
import { type FileHandle, open } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import type { Copy, ToCopy } from './copy.js';
import type { KeptDisk } from './kept.js';
import { flushDevice } from './native.js';
import type { Run } from './run.js';
import { bytesOf } from './size.js';

const timeoutMs = 60_000;
/** The guest stands meanwhile. */
const takeTimeoutMs = 20_000;
const pieceBytes = 4 << 20;

/** Device numbers as /sys names them. */
async function deviceNumbers(path: string): Promise<string | null> {
  const { rdev } = await stat(path, { bigint: true });
  if (rdev === 0n) return null;
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
}

interface Volume {
  readonly group: string;
  readonly name: string;
}

/** HOST_LACKS for what is no thin volume. */
async function thinVolumeOf(run: Run, { name, path }: ToCopy['disk']): Promise<Volume> {
  const notThin = new DormouseError('HOST_LACKS', `disk ${name}: ${path} is no thin volume of LVM`, {
    advice: 'See `--disks reflink` and `--disks command:PROGRAM`.',
  });
  const numbers = await deviceNumbers(path);
  const mapped = await readFile(`/sys/dev/block/${numbers ?? ''}/dm/name`, 'utf8').catch(() => null);
  if (mapped === null) throw notThin;
  const columns = ['--noheadings', '--separator', '/', '-o', 'vg_name,lv_name,segtype'];
  const told = run('lvs', [...columns, `/dev/mapper/${mapped.trim()}`], { timeoutMs });
  const [group = '', volume = '', type] = told.trim().split('/');
  if (type !== 'thin') throw notThin;
  return { group, name: volume };
}

/** No other volume is ever touched, whatever a record says. */
const ours = /^\w[\w.+-]*\/dormouse-[0-9a-f-]{36}-[\w.-]+$/u;

function requireOurs({ name, where }: KeptDisk): void {
  if (!ours.test(where))
    throw new DormouseError('STORE_DAMAGED', `disk ${name}: '${where}' is no volume of dormouse's`);
}

export async function lvmCopy(run: Run, { disk, where }: ToCopy): Promise<Copy> {
  const volume = await thinVolumeOf(run, disk);
  const { name, path } = disk;
  const kept: KeptDisk = { name, path, bytes: await bytesOf(path), where: `${volume.group}/${where}` };
  requireOurs(kept);
  let taken = false;
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    disk: kept,
    ready: nothing,
    take: () => {
      if (taken) lvmForget(run, kept);
      const snapshot = ['--snapshot', '--setactivationskip', 'y', '--activate', 'n', '--name', where];
      run('lvcreate', ['--yes', '--quiet', ...snapshot, `${volume.group}/${volume.name}`], {
        timeoutMs: takeTimeoutMs,
      });
      taken = true;
    },
    settle: nothing,
    close: nothing,
  };
}

export function lvmIsThere(run: Run, { where }: KeptDisk): boolean {
  const told = run(
    'lvs',
    [
      '--noheadings',
      '-o',
      'vg_name,lv_name',
      '--separator',
      '/',
      '--select',
      `vg_name=${where.split('/')[0] ?? ''} && lv_name=${where.split('/')[1] ?? ''}`,
    ],
    { timeoutMs },
  );
  return told.trim() === where;
}

/** Nothing to do where it is gone. COMMAND_FAILED. */
export function lvmForget(run: Run, disk: KeptDisk): void {
  requireOurs(disk);
  if (lvmIsThere(run, disk)) run('lvremove', ['--yes', '--quiet', disk.where], { timeoutMs });
}

async function copyDifferent(to: FileHandle, from: FileHandle, bytes: number): Promise<void> {
  const [now, then] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  for (let at = 0; at < bytes; at += pieceBytes) {
    const length = Math.min(pieceBytes, bytes - at);
    const read = await Promise.all([to.read(now, 0, length, at), from.read(then, 0, length, at)]);
    if (read.some(({ bytesRead }) => bytesRead !== length))
      throw new DormouseError('IMAGE_READ_FAILED', `a volume ends at ${at}, before its ${bytes} bytes`);
    if (now.compare(then, 0, length, 0, length) !== 0) await to.write(then, 0, length, at);
  }
}

/**
 * The volume gets the content of its snapshot and stays the volume that it is. Merging would need it closed, and a backend that is off
 * keeps it open; so what differs is copied, and both are read for it.
 */
export async function lvmBack(run: Run, to: string, disk: KeptDisk): Promise<void> {
  requireOurs(disk);
  const activate = (how: 'y' | 'n'): unknown =>
    run('lvchange', ['--activate', how, '--ignoreactivationskip', '--yes', '--quiet', disk.where], {
      timeoutMs,
    });
  activate('y');
  try {
    const [target, source] = [await open(to, 'r+'), await open(`/dev/${disk.where}`, 'r')];
    try {
      // A backend reads and writes past this cache.
      const flush = (await target.stat()).isBlockDevice() ? (): void => flushDevice(target.fd) : null;
      flush?.();
      flushDevice(source.fd);
      await copyDifferent(target, source, disk.bytes);
      await target.sync();
      flush?.();
    } finally {
      await source.close();
      await target.close();
    }
  } finally {
    activate('n');
  }
}

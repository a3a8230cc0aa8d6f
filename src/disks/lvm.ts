/** Disks that are thin volumes of LVM: kept as snapshots of their pool. */
import { Buffer } from 'node:buffer';
import { type FileHandle, readFile, stat } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import type { Copy, ToCopy } from './copy.js';
import type { KeptDisk } from './kept.js';
import { flushDevice } from './native.js';
import type { Run } from './run.js';
import { bytesOf, bytesOfFile, requireBytes } from './size.js';
import { withFile } from './with_file.js';

/** LVM that is ended at the wrong moment leaves a volume suspended, and whoever writes to it: it ends when it can. */
const waiting = { timeoutMs: 60_000, waits: true, env: { LVM_SUPPRESS_FD_WARNINGS: '1' } };
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
  const told = run('lvs', [...columns, `/dev/mapper/${mapped.trim()}`], waiting);
  const [group = '', volume = '', type] = told.trim().split('/');
  if (type !== 'thin') throw notThin;
  return { group, name: volume };
}

export async function lvmCopy(run: Run, { disk, where }: ToCopy): Promise<Copy> {
  const volume = await thinVolumeOf(run, disk);
  const { name, path } = disk;
  const kept: KeptDisk = { name, path, bytes: await bytesOf(path), where: `${volume.group}/${where}` };
  let taken = false;
  const nothing = (): Promise<void> => Promise.resolve();
  return {
    disk: kept,
    ready: nothing,
    take: () => {
      if (taken) lvmForget(run, kept);
      // A thin volume of a thin volume is its snapshot. Of one that is asked for as `--snapshot` LVM wants a kernel with other snapshots, too.
      const snapshot = ['--type', 'thin', '--setactivationskip', 'y', '--activate', 'n', '--name', where];
      run('lvcreate', ['--yes', '--quiet', ...snapshot, `${volume.group}/${volume.name}`], {
        ...{ ...waiting, timeoutMs: takeTimeoutMs },
      });
      taken = true;
    },
    settle: nothing,
    close: nothing,
  };
}

/** Null where it is gone. COMMAND_FAILED: also where its group is not seen, which need not be gone for good. */
export function lvmBytes(run: Run, { where }: KeptDisk): number | null {
  const [group = '', name = ''] = where.split('/');
  const columns = ['--noheadings', '--units', 'b', '--nosuffix', '--separator', '/', '-o', 'lv_name,lv_size'];
  for (const line of run('lvs', [...columns, group], waiting).split('\n')) {
    const [volume, bytes] = line.trim().split('/');
    if (volume === name) return Number(bytes);
  }
  return null;
}

/** Nothing to do where it is gone. COMMAND_FAILED. */
export function lvmForget(run: Run, disk: KeptDisk): void {
  if (lvmBytes(run, disk) !== null) run('lvremove', ['--yes', '--quiet', disk.where], waiting);
}

async function writeAll(to: FileHandle, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length;)
    done += (await to.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
}

async function copyDifferent(to: FileHandle, from: FileHandle, bytes: number): Promise<void> {
  const [now, then] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  for (let at = 0; at < bytes; at += pieceBytes) {
    const length = Math.min(pieceBytes, bytes - at);
    const read = await Promise.all([to.read(now, 0, length, at), from.read(then, 0, length, at)]);
    if (read.some(({ bytesRead }) => bytesRead !== length))
      throw new DormouseError('IMAGE_READ_FAILED', `a volume ends at ${at}, before its ${bytes} bytes`);
    if (now.compare(then, 0, length, 0, length) !== 0) await writeAll(to, then.subarray(0, length), at);
  }
}

function activate(run: Run, where: string, how: 'y' | 'n'): void {
  run('lvchange', ['--activate', how, '--ignoreactivationskip', '--yes', '--quiet', where], waiting);
}

/**
 * The volume gets the content of its snapshot and stays the volume that it is. Merging would need it closed, and a backend that is off
 * keeps it open; so what differs is copied, and both are read for it.
 */
export async function lvmBack(run: Run, to: string, disk: KeptDisk): Promise<void> {
  activate(run, disk.where, 'y');
  try {
    await withFile(`/dev/${disk.where}`, 'r', (source) =>
      withFile(to, 'r+', async (target) => {
        requireBytes(disk, await bytesOfFile(target), await bytesOfFile(source));
        // A backend reads and writes past this cache.
        const flush = (await target.stat()).isBlockDevice() ? (): void => flushDevice(target.fd) : null;
        flush?.();
        flushDevice(source.fd);
        await copyDifferent(target, source, disk.bytes);
        await target.sync();
        flush?.();
      }),
    );
  } finally {
    deactivate(run, disk);
  }
}

/** One that stays active is in nobody's way. */
function deactivate(run: Run, { where }: KeptDisk): void {
  try {
    activate(run, where, 'n');
  } catch {
    // What was put back is there all the same.
  }
}

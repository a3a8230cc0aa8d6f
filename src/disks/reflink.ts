/** Disks that are files of a file system which lets two files share blocks: XFS, btrfs. */
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { DormouseError } from '../errors.js';
import type { DomainDisk } from '../host/contract.js';
import type { Copy, ToCopy } from './copy.js';
import type { KeptDisk } from './kept.js';
import { cloneFile, flushDevice } from './native.js';
import { bytesOfFile, requireBytes } from './size.js';
import { withFile } from './with_file.js';

/** So much is cloned to see whether it can be: a whole number of any file system's blocks. */
const trialBytes = 1 << 20;

const lacks = (message: string, advice: string): DormouseError =>
  new DormouseError('HOST_LACKS', message, { advice });

async function requireClonable(
  to: FileHandle,
  from: FileHandle,
  bytes: number,
  { name, path }: DomainDisk,
): Promise<void> {
  try {
    cloneFile(to.fd, from.fd, bytes > trialBytes ? trialBytes : 0);
    await to.truncate(0);
  } catch (thrown) {
    if (!(thrown instanceof DormouseError) || thrown.code !== 'HOST_LACKS') throw thrown;
    throw lacks(
      `disk ${name}: ${path} cannot share blocks with a file of the store (${thrown.message})`,
      'Keep the store on the file system of the disks, which is to be XFS or btrfs; or see `--disks command:PROGRAM`.',
    );
  }
}

/** Into the file `path`, which is there and empty. HOST_LACKS if it is no file, or not of this file system. */
export async function reflinkCopy({ disk, where }: ToCopy, path: string): Promise<Copy> {
  if (disk.kind !== 'file')
    throw lacks(
      `disk ${disk.name}: ${disk.path} is a block device, and reflink keeps files`,
      'See `--disks lvm-thin` and `--disks command:PROGRAM`.',
    );
  const from = await open(disk.path, 'r');
  try {
    const to = await open(path, 'r+');
    const { size: bytes } = await from.stat();
    const kept: KeptDisk = { name: disk.name, path: disk.path, bytes, where };
    const close = async (): Promise<void> => {
      await from.close();
      await to.close();
    };
    try {
      await requireClonable(to, from, bytes, disk);
    } catch (thrown) {
      await to.close();
      throw thrown;
    }
    return {
      disk: kept,
      // What is not on disk yet is written in the clone: the less of it the better.
      ready: () => from.datasync(),
      take: () => cloneFile(to.fd, from.fd),
      settle: async () => {
        await to.sync();
        const { size } = await to.stat();
        if (size !== bytes)
          throw new DormouseError('IMAGE_WRITE_FAILED', `disk ${disk.name} changed its size meanwhile`);
      },
      close,
    };
  } catch (thrown) {
    await from.close();
    throw thrown;
  }
}

async function textIfThere(path: string): Promise<string | null> {
  return await readFile(path, 'utf8').catch(() => null);
}

/** The loop devices that show a file. */
async function loopDevices(path: string): Promise<string[]> {
  const { dev, ino } = await stat(path);
  const found: string[] = [];
  for (const name of await readdir('/sys/block').catch(() => [])) {
    if (!name.startsWith('loop')) continue;
    const backing = (await textIfThere(join('/sys/block', name, 'loop/backing_file')))?.trimEnd();
    if (backing === undefined) continue;
    const its = await stat(backing).catch(() => null);
    if (its?.dev === dev && its.ino === ino) found.push(`/dev/${basename(name)}`);
  }
  return found;
}

/**
 * What the kernel has cached of the device itself is apart from what it has of the file below: pages that were written there would be
 * written over the disk later, and pages that were read there would be those of before.
 */
async function flushDevices(devices: readonly string[]): Promise<void> {
  for (const device of devices)
    await withFile(device, 'r', ({ fd }) => {
      flushDevice(fd);
      return Promise.resolve();
    });
}

/** The file at `to` gets the content of the one at `from` and stays the file that it is: who has it open goes on with it. */
export async function reflinkBack(to: string, from: string, disk: KeptDisk): Promise<void> {
  const devices = await loopDevices(to);
  await flushDevices(devices);
  // A store of somebody else's may have a link there.
  await withFile(from, constants.O_RDONLY | constants.O_NOFOLLOW, (source) =>
    withFile(to, 'r+', async (target) => {
      requireBytes(disk, await bytesOfFile(target), await bytesOfFile(source));
      cloneFile(target.fd, source.fd);
      await target.sync();
    }),
  );
  await flushDevices(devices);
}

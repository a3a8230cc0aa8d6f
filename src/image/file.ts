/** Reading an image's file. */
import { constants as bufferConstants } from 'node:buffer';
import { closeSync, constants, fsyncSync, openSync, realpathSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { DormouseError } from '../errors.js';

/** Opens a regular file for reading. IMAGE_NOT_FOUND, IMAGE_READ_FAILED. */
export async function openImageFile(path: string): Promise<{ file: FileHandle; size: number }> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const missing = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG'].includes(
      (cause as NodeJS.ErrnoException).code ?? '',
    );
    if (missing) throw new DormouseError('IMAGE_NOT_FOUND', `${path}: no such file`, { place: { path } });
    throw new DormouseError('IMAGE_READ_FAILED', `${path} cannot be read`, { cause, place: { path } });
  }
  const stat = await file.stat();
  if (stat.isFile()) return { file, size: stat.size };
  await file.close();
  throw new DormouseError('IMAGE_NOT_FOUND', `${path} is not a regular file`, { place: { path } });
}

/** Exactly these bytes of the file, in `into` if they fit there; IMAGE_DAMAGED if it ends before, IMAGE_READ_FAILED. */
export async function readExactly(
  file: FileHandle,
  offset: number,
  size: number,
  into?: Buffer,
): Promise<Buffer> {
  if (size > bufferConstants.MAX_LENGTH)
    throw new DormouseError('NO_MEMORY', `${size} bytes at once are more than this version can hold`);
  const bytes = into && into.length >= size ? into.subarray(0, size) : Buffer.allocUnsafe(size);
  for (let done = 0; done < size;) {
    const part = Math.min(size - done, 1 << 28);
    const { bytesRead } = await file.read(bytes, done, part, offset + done).catch((cause: unknown) => {
      throw new DormouseError('IMAGE_READ_FAILED', String(cause), { cause, place: { offset } });
    });
    if (bytesRead === 0)
      throw new DormouseError('IMAGE_DAMAGED', 'the file ends early', { place: { offset: offset + done } });
    done += bytesRead;
  }
  return bytes;
}

/** The path without symbolic links, by which files of one folder are known; of what is not there, its folder's. */
export function realPath(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    // Not normalised as text: what lies above a link's target is not above the link.
    const folder = dirname(path);
    return folder === path ? resolve(path) : join(realPath(folder), basename(path));
  }
}

/** Puts what a file holds on disk, whoever wrote it; with O_DIRECTORY the names in a folder. */
export function syncFile(path: string, flags: number = constants.O_RDONLY): void {
  const fd = openSync(path, flags);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

export const syncFolder = (path: string): void => syncFile(path, constants.O_RDONLY | constants.O_DIRECTORY);

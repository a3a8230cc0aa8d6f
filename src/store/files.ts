/** The calls on files that a store in a folder is made of. A test gives others, that lose what was not synced. */
import { Buffer } from 'node:buffer';
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { promisify } from 'node:util';

/** Each throws as node:fs does. */
export interface FileCalls {
  /** One folder; EEXIST. */
  makeFolder(path: string): Promise<void>;
  /** Puts the names in a folder on disk. */
  syncFolder(path: string): Promise<void>;
  /** A new file of these bytes, which are on disk when it returns; its name need not be. EEXIST. */
  writeNew(path: string, bytes: Buffer): Promise<void>;
  /** Puts what was written to a file on disk. */
  syncFile(path: string): Promise<void>;
  /** EEXIST. */
  link(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  /** The first `most` bytes of a regular file. */
  read(path: string, most: number): Promise<Buffer>;
  list(path: string): Promise<string[]>;
  /** Bytes that it takes on disk. */
  usedBytes(path: string): Promise<number>;
  freeBytes(path: string): Promise<number>;
}

/** To wake a thread takes longer than most calls do: only those that wait for a disk are given to one. */
const atOnce = <T>(call: () => T): Promise<T> =>
  new Promise((resolve) => {
    resolve(call());
  });
const sync = promisify(fsync);

async function withFile<T>(
  path: string,
  flags: number,
  use: (fd: number) => T | Promise<T>,
  mode?: number,
): Promise<T> {
  const fd = openSync(path, flags, mode);
  try {
    return await use(fd);
  } finally {
    closeSync(fd);
  }
}

export const nodeFiles: FileCalls = {
  makeFolder: (path) =>
    atOnce(() => {
      mkdirSync(path, { mode: 0o700 });
    }),
  syncFolder: (path) => withFile(path, constants.O_RDONLY | constants.O_DIRECTORY, sync),
  writeNew: (path, bytes) =>
    withFile(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
      async (fd) => {
        writeFileSync(fd, bytes);
        await sync(fd);
      },
      0o600,
    ),
  syncFile: (path) => withFile(path, constants.O_RDONLY | constants.O_NOFOLLOW, sync),
  link: (from, to) =>
    atOnce(() => {
      linkSync(from, to);
    }),
  unlink: (path) =>
    atOnce(() => {
      unlinkSync(path);
    }),
  read: (path, most) =>
    withFile(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW, (fd) => {
      const buffer = Buffer.alloc(Math.min(fstatSync(fd).size + 1, most));
      return buffer.subarray(0, readSync(fd, buffer));
    }),
  list: (path) => atOnce(() => readdirSync(path)),
  usedBytes: (path) => atOnce(() => Number(lstatSync(path, { bigint: true }).blocks * 512n)),
  freeBytes: (path) =>
    atOnce(() => {
      const { bavail, bsize } = statfsSync(path);
      return bavail * bsize;
    }),
};

/** The calls on files that a store in a folder is made of. A test gives others, that lose what was not synced. */
import { Buffer } from 'node:buffer';
import { constants } from 'node:fs';
import { link, lstat, mkdir, open, readdir, statfs, unlink } from 'node:fs/promises';

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

export const nodeFiles: FileCalls = {
  makeFolder: (path) => mkdir(path, { mode: 0o700 }),
  async syncFolder(path) {
    const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
  async writeNew(path, bytes) {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
  },
  async syncFile(path) {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  },
  link,
  unlink,
  async read(path, most) {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    try {
      const { size } = await file.stat();
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(Math.min(size + 1, most)) });
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  },
  list: (path) => readdir(path),
  async usedBytes(path) {
    const { blocks } = await lstat(path, { bigint: true });
    return Number(blocks * 512n);
  },
  async freeBytes(path) {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
};

/** A shelf that is a folder of this machine: each name a file, made whole by link(2) and synced with its folder. */
import { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import { link, lstat, mkdir, open, readdir, statfs, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DormouseError } from '../errors.js';
import { thisProcess } from './holder.js';
import type { Shelf } from './shelf.js';

const largestBytes = 1 << 20;
const codeOf = (thrown: unknown): string => (thrown as NodeJS.ErrnoException).code ?? '';
const isMissing = (thrown: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes(codeOf(thrown));

/** Errors of files as errors of the list. */
function failed(path: string, does: 'read' | 'written', thrown: unknown): DormouseError {
  if (thrown instanceof DormouseError) return thrown;
  const full = ['ENOSPC', 'EDQUOT'].includes(codeOf(thrown));
  const code = does === 'read' ? 'IMAGE_READ_FAILED' : full ? 'NO_SPACE' : 'IMAGE_WRITE_FAILED';
  return new DormouseError(code, `${path} cannot be ${does}: ${(thrown as Error).message}`, {
    cause: thrown,
    place: { path },
    advice: full
      ? 'Free disk space, or prune points.'
      : 'Check that the store is there, writable and its disk whole.',
  });
}

async function syncFolderOf(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function writeWhole(path: string, bytes: Buffer): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** False if there is something of that name. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (thrown) {
    if (codeOf(thrown) === 'EEXIST') return false;
    throw thrown;
  }
}

/** `.HOLDER.RANDOM.new`, or the writer's own `.NAME.RANDOM.partial`. */
function isLeftOver(name: string, inUse: ReadonlySet<string>): boolean {
  const [, holder] = /^\.([0-9a-f-]+)\.[0-9a-f]+\.new$/u.exec(name) ?? [];
  if (holder !== undefined) return thisProcess.isDead(holder);
  const [, written] = /^\.(.+)\.[^.]+\.partial$/u.exec(name) ?? [];
  return written !== undefined && !inUse.has(written);
}

export class FolderShelf implements Shelf {
  readonly description: string;

  constructor(readonly root: string) {
    this.description = root;
  }

  #path(name: string): string {
    if (!/^[0-9A-Za-z][\w.~-]*(?:\/[0-9A-Za-z][\w.~-]*)*$/u.test(name))
      throw new DormouseError('INTERNAL', `'${name}' is no name of a thing in a store`);
    return join(this.root, name);
  }

  /** Made with all above it below the root, each one synced into its own. */
  async #makeFolder(path: string): Promise<void> {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let at = path; at.length >= first.length; at = dirname(at)) await syncFolderOf(dirname(at));
  }

  async putIfAbsent(name: string, bytes: Buffer): Promise<boolean> {
    const path = this.#path(name);
    const folder = dirname(path);
    const temporary = join(folder, `.${thisProcess.name}.${randomBytes(6).toString('hex')}.new`);
    try {
      await this.#makeFolder(folder);
      try {
        await writeWhole(temporary, bytes);
        if (!(await linked(temporary, path))) return false;
      } finally {
        await unlink(temporary).catch(() => undefined);
      }
      await syncFolderOf(folder);
      return true;
    } catch (thrown) {
      throw failed(path, 'written', thrown);
    }
  }

  async get(name: string): Promise<Buffer | null> {
    const path = this.#path(name);
    try {
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
      try {
        const { size } = await file.stat();
        if (size > largestBytes)
          throw new DormouseError('STORE_DAMAGED', `${path} is larger than anything that is kept there`);
        return await file.readFile();
      } finally {
        await file.close();
      }
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw failed(path, 'read', thrown);
    }
  }

  async list(folder: string): Promise<readonly string[]> {
    const path = folder === '' ? this.root : this.#path(folder);
    try {
      return (await readdir(path)).filter((name) => !name.startsWith('.')).sort();
    } catch (thrown) {
      if (isMissing(thrown)) return [];
      throw failed(path, 'read', thrown);
    }
  }

  async size(name: string): Promise<number | null> {
    const path = this.#path(name);
    try {
      const stat: BigIntStats = await lstat(path, { bigint: true });
      return Number(stat.blocks * 512n);
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw failed(path, 'read', thrown);
    }
  }

  async delete(name: string): Promise<boolean> {
    const path = this.#path(name);
    try {
      await unlink(path);
      await syncFolderOf(dirname(path));
      return true;
    } catch (thrown) {
      if (isMissing(thrown)) return false;
      throw failed(path, 'written', thrown);
    }
  }

  async imagePath(name: string): Promise<string> {
    const path = this.#path(name);
    try {
      await this.#makeFolder(dirname(path));
      return path;
    } catch (thrown) {
      throw failed(path, 'written', thrown);
    }
  }

  async freeBytes(): Promise<number> {
    try {
      const { bavail, bsize } = await statfs(this.root);
      return bavail * bsize;
    } catch (thrown) {
      throw failed(this.root, 'read', thrown);
    }
  }

  async sweep(folder: string, inUse: ReadonlySet<string>): Promise<void> {
    const path = this.#path(folder);
    try {
      for (const name of await readdir(path))
        if (isLeftOver(name, inUse)) await unlink(join(path, name)).catch(() => undefined);
    } catch (thrown) {
      if (!isMissing(thrown)) throw failed(path, 'read', thrown);
    }
  }
}

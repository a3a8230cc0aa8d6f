/** A shelf that is a folder of this machine: each name a file, made whole by link(2) and synced with its folder. */
import { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { dirname, join } from 'node:path';
import { DormouseError } from '../errors.js';
import { type FileCalls, nodeFiles } from './files.js';
import { type Holder, thisProcess } from './holder.js';
import { type Lasts, largestBytes, type NewFile, requireName, type Shelf } from './shelf.js';

const codeOf = (thrown: unknown): string => (thrown as NodeJS.ErrnoException).code ?? '';
const isMissing = (thrown: unknown): boolean => ['ENOENT', 'ENOTDIR'].includes(codeOf(thrown));

/** Errors of files as errors of the list. */
function failed(path: string, does: 'read' | 'written', thrown: unknown): unknown {
  if (codeOf(thrown) === '' || thrown instanceof DormouseError) return thrown;
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

/** With errors of files as errors of the list. */
async function telling<T>(path: string, does: 'read' | 'written', body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (thrown) {
    throw failed(path, does, thrown);
  }
}

/** The same, but `missing` where there is no such file. */
async function ifThere<T, M>(
  path: string,
  does: 'read' | 'written',
  missing: M,
  body: () => Promise<T>,
): Promise<T | M> {
  return await telling(path, does, async () => {
    try {
      return await body();
    } catch (thrown) {
      if (isMissing(thrown)) return missing;
      throw thrown;
    }
  });
}

export class FolderShelf implements Shelf {
  readonly description: string;

  constructor(
    readonly root: string,
    private readonly files: FileCalls = nodeFiles,
    private readonly holder: Holder = thisProcess,
  ) {
    this.description = root;
  }

  #path(name: string): string {
    requireName(name);
    return join(this.root, name);
  }

  /** With all above it that are missing, each one synced into its own. */
  async #makeFolder(path: string): Promise<void> {
    try {
      await this.files.makeFolder(path);
    } catch (thrown) {
      if (codeOf(thrown) === 'EEXIST') return;
      if (codeOf(thrown) !== 'ENOENT' || dirname(path) === path) throw thrown;
      await this.#makeFolder(dirname(path));
      await this.files.makeFolder(path).catch((late: unknown) => {
        if (codeOf(late) !== 'EEXIST') throw late;
      });
    }
    await this.files.syncFolder(dirname(path));
  }

  /** False if there is something of that name. */
  async #linked(from: string, to: string): Promise<boolean> {
    try {
      await this.files.link(from, to);
      return true;
    } catch (thrown) {
      if (codeOf(thrown) === 'EEXIST') return false;
      throw thrown;
    }
  }

  /** Beside `path`, known to be nobody's once this process is dead. */
  #temporary(path: string): string {
    return join(dirname(path), `.${this.holder.name}.${randomBytes(6).toString('hex')}.new`);
  }

  /** Of what is on disk under a temporary name, which goes. */
  async #name(temporary: string, path: string, lasts: Lasts = 'durable'): Promise<boolean> {
    let linked: boolean;
    try {
      linked = await this.#linked(temporary, path);
    } finally {
      await this.files.unlink(temporary).catch(() => undefined);
    }
    // Of another's the name may not be on disk yet either.
    if (lasts === 'durable') await this.files.syncFolder(dirname(path));
    return linked;
  }

  /** A new file under a temporary name, which goes if it cannot be made. */
  async #make(path: string, bytes: Buffer): Promise<string> {
    const temporary = this.#temporary(path);
    await this.#makeFolder(dirname(path));
    await this.files.writeNew(temporary, bytes).catch(async (thrown: unknown) => {
      await this.files.unlink(temporary).catch(() => undefined);
      throw thrown;
    });
    return temporary;
  }

  async putIfAbsent(name: string, bytes: Buffer, lasts: Lasts = 'durable'): Promise<boolean> {
    const path = this.#path(name);
    return await telling(path, 'written', async () => this.#name(await this.#make(path, bytes), path, lasts));
  }

  async create(name: string): Promise<NewFile> {
    const path = this.#path(name);
    const temporary = await telling(path, 'written', () => this.#make(path, Buffer.alloc(0)));
    let ended = false;
    const drop = async (): Promise<void> => {
      if (ended) return;
      ended = true;
      await this.files.unlink(temporary).catch(() => undefined);
    };
    const publish = (): Promise<boolean> =>
      telling(path, 'written', async () => {
        await this.files.syncFile(temporary);
        ended = true;
        return await this.#name(temporary, path);
      });
    return { path: temporary, publish, drop };
  }

  async get(name: string): Promise<Buffer | null> {
    const path = this.#path(name);
    const bytes = await ifThere(path, 'read', null, () => this.files.read(path, largestBytes));
    if (bytes === null || bytes.length < largestBytes) return bytes;
    throw new DormouseError('STORE_DAMAGED', `${path} is larger than anything that is kept there`);
  }

  async list(folder: string): Promise<readonly string[]> {
    const path = folder === '' ? this.root : this.#path(folder);
    const names = await ifThere(path, 'read', [], () => this.files.list(path));
    return names.filter((name) => !name.startsWith('.')).sort();
  }

  async size(name: string): Promise<number | null> {
    const path = this.#path(name);
    return await ifThere(path, 'read', null, () => this.files.usedBytes(path));
  }

  async delete(name: string, lasts: Lasts = 'durable'): Promise<boolean> {
    const path = this.#path(name);
    return await ifThere(path, 'written', false, async () => {
      await this.files.unlink(path);
      if (lasts === 'durable') await this.files.syncFolder(dirname(path));
      return true;
    });
  }

  async imagePath(name: string): Promise<string> {
    const path = this.#path(name);
    await telling(path, 'written', () => this.#makeFolder(dirname(path)));
    return path;
  }

  async freeBytes(): Promise<number> {
    return await telling(this.root, 'read', () => this.files.freeBytes(this.root));
  }

  /** `.HOLDER.RANDOM.new`, or the image writer's own `.NAME.RANDOM.partial`. */
  #isLeftOver(name: string, inUse: ReadonlySet<string>): boolean {
    const [, holder] = /^\.([^.]+)\.[0-9a-f]+\.new$/u.exec(name) ?? [];
    if (holder !== undefined) return this.holder.isDead(holder);
    const [, written] = /^\.(.+)\.[^.]+\.partial$/u.exec(name) ?? [];
    return written !== undefined && !inUse.has(written);
  }

  async sweep(folder: string, inUse: ReadonlySet<string>): Promise<void> {
    const path = this.#path(folder);
    const names = await ifThere(path, 'read', [], () => this.files.list(path));
    for (const name of names)
      if (this.#isLeftOver(name, inUse)) await this.files.unlink(join(path, name)).catch(() => undefined);
  }
}

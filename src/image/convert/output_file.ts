/** A new file that gets its name only when it is whole. */
import { randomBytes } from 'node:crypto';
import type { Buffer } from 'node:buffer';
import { constants } from 'node:fs';
import { link, lstat, open, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DormouseError } from '../../errors.js';

function codeOf(thrown: unknown): string {
  const code = (thrown as { code?: unknown }).code;
  return typeof code === 'string' ? code : '';
}

function outputError(thrown: unknown, path: string): DormouseError {
  const code = codeOf(thrown);
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  const options = { cause: thrown, place: { path }, guest: 'untouched' } as const;
  if (code === 'EEXIST') return new DormouseError('OUTPUT_EXISTS', `${path} exists`, options);
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new DormouseError('NO_SPACE', `no space for ${path}: ${reason}`, options);
  if (['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM', 'EROFS', 'ENAMETOOLONG', 'EISDIR', 'ELOOP'].includes(code))
    return new DormouseError('OUTPUT_INVALID', `cannot create ${path}: ${reason}`, options);
  return new DormouseError('IMAGE_WRITE_FAILED', `cannot write ${path}: ${reason}`, options);
}

async function refuseExisting(path: string): Promise<void> {
  const there = await lstat(path).catch((thrown: unknown) => {
    if (codeOf(thrown) === 'ENOENT') return null;
    throw outputError(thrown, path);
  });
  if (there === null) return;
  if (there.isFile()) throw new DormouseError('OUTPUT_EXISTS', `${path} exists`, { place: { path } });
  throw new DormouseError('OUTPUT_INVALID', `${path} is not a regular file`, { place: { path } });
}

export class OutputFile {
  #bytes = 0;
  #open = true;

  private constructor(
    readonly path: string,
    /** Where the file is until commit. */
    readonly temporaryPath: string,
    private readonly handle: FileHandle,
  ) {}

  /** A file beside `path`, mode 0600. OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE, IMAGE_WRITE_FAILED. */
  static async create(path: string): Promise<OutputFile> {
    await refuseExisting(path);
    const temporary = join(dirname(path), `.${basename(path).slice(0, 200)}.${randomBytes(8).toString('hex')}.tmp`);
    try {
      const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;
      const handle = await open(temporary, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0o600);
      return new OutputFile(path, temporary, handle);
    } catch (thrown) {
      throw outputError(thrown, path);
    }
  }

  /** Bytes written. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Writes all of the pieces at the end. NO_SPACE, IMAGE_WRITE_FAILED. */
  async write(pieces: readonly Buffer[]): Promise<void> {
    let left = pieces.filter((piece) => piece.length > 0);
    while (left.length > 0) {
      let written: number;
      try {
        ({ bytesWritten: written } = await this.handle.writev(left, this.#bytes));
      } catch (thrown) {
        throw outputError(thrown, this.path);
      }
      this.#bytes += written;
      left = left.flatMap((piece) => {
        const passed = Math.min(written, piece.length);
        written -= passed;
        return passed === piece.length ? [] : [piece.subarray(passed)];
      });
    }
  }

  /** Syncs the file, gives it its name, never replacing another, and syncs the folder. */
  async commit(): Promise<void> {
    try {
      await this.handle.sync();
      await link(this.temporaryPath, this.path);
      await unlink(this.temporaryPath);
      const folder = await open(dirname(this.path), constants.O_RDONLY);
      await folder.sync().finally(() => folder.close());
    } catch (thrown) {
      throw outputError(thrown, this.path);
    }
    this.#open = false;
    await this.handle.close();
  }

  /** Removes what was written; nothing after a commit. */
  async abandon(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.handle.close();
    await unlink(this.temporaryPath).catch(() => undefined);
  }
}

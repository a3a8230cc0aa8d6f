/** Sequential reading of a plain or gzip file through one bounded buffer. */
import { Buffer } from 'node:buffer';
import { once } from 'node:events';
import { createReadStream, type ReadStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { createGunzip, type Gunzip } from 'node:zlib';
import { DormouseError } from '../errors.js';
import { openImageFile } from '../image/file.js';
import { streamInvalid, type ByteReader } from './frames/byte_reader.js';

const windowBytes = 8 * 1024 * 1024;

/** Where bytes come from. */
interface Feed {
  /** Reads at least one byte into `target`; 0 at the end of the file. */
  pull(target: Buffer): Promise<number>;
  /** Passes over bytes without reading them, where that can be done; returns how many. */
  seek(bytes: number): number;
  /** Bytes not pulled yet, where that is known. */
  remaining(): number | null;
  close(): Promise<void>;
}

class PlainFeed implements Feed {
  #position = 0;
  constructor(
    private readonly handle: FileHandle,
    private readonly bytes: number,
    private readonly path: string,
  ) {}

  async pull(target: Buffer): Promise<number> {
    try {
      const length = Math.min(target.length, this.remaining());
      const { bytesRead } = await this.handle.read(target, 0, length, this.#position);
      this.#position += bytesRead;
      return bytesRead;
    } catch (cause) {
      throw readFailed(this.path, cause);
    }
  }
  seek(bytes: number): number {
    const taken = Math.min(bytes, Math.max(0, this.bytes - this.#position));
    this.#position += taken;
    return taken;
  }
  remaining(): number {
    return Math.max(0, this.bytes - this.#position);
  }
  async close(): Promise<void> {
    await this.handle.close();
  }
}

class GzipFeed implements Feed {
  readonly #file: ReadStream;
  readonly #gunzip: Gunzip;
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  #unpacked = 0;
  constructor(
    handle: FileHandle,
    private readonly path: string,
  ) {
    this.#file = createReadStream(path, { fd: handle, start: 0, highWaterMark: 1 << 20 });
    this.#gunzip = createGunzip({ chunkSize: 1 << 20 });
    this.#file.on('error', (error) => this.#gunzip.destroy(error));
    this.#file.pipe(this.#gunzip);
    this.#chunks = this.#gunzip[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  async pull(target: Buffer): Promise<number> {
    if (this.#rest.length === 0) {
      const next = await this.#next();
      if (next === null) return 0;
      this.#rest = next;
    }
    const taken = this.#rest.copy(target);
    this.#rest = this.#rest.subarray(taken);
    this.#unpacked += taken;
    return taken;
  }
  async #next(): Promise<Buffer | null> {
    try {
      const next = await this.#chunks.next();
      return next.done === true ? null : next.value;
    } catch (cause) {
      const code = (cause as { code?: unknown }).code;
      if (typeof code === 'string' && code.startsWith('Z_'))
        throw new DormouseError('STREAM_INVALID', `the gzip data is damaged or cut short (${code})`, {
          cause,
          place: { offset: this.#unpacked },
        });
      throw readFailed(this.path, cause);
    }
  }
  seek(): number {
    return 0;
  }
  remaining(): null {
    return null;
  }
  async close(): Promise<void> {
    this.#gunzip.destroy();
    if (this.#file.closed) return;
    const closed = once(this.#file, 'close');
    this.#file.destroy();
    await closed;
  }
}

function readFailed(path: string, cause: unknown): DormouseError {
  const missing = (cause as { code?: unknown }).code === 'ENOENT';
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DormouseError(
    missing ? 'IMAGE_NOT_FOUND' : 'IMAGE_READ_FAILED',
    `cannot read ${path}: ${reason}`,
    {
      cause,
      place: { path },
    },
  );
}

export class ByteSource implements ByteReader {
  readonly #window = Buffer.allocUnsafeSlow(windowBytes);
  #start = 0;
  #end = 0;
  #offset = 0;

  private constructor(private readonly feed: Feed) {}

  /**
   * Opens `path`, unpacking it if it begins as gzip does; of a plain file at most `limitBytes` are there.
   * IMAGE_NOT_FOUND, IMAGE_READ_FAILED.
   */
  static async open(path: string, limitBytes = Infinity): Promise<ByteSource> {
    const { file: handle, size: bytes } = await openImageFile(path);
    try {
      const head = Buffer.alloc(2);
      await handle.read(head, 0, 2, 0);
      const gzip = head[0] === 0x1f && head[1] === 0x8b;
      return new ByteSource(
        gzip ? new GzipFeed(handle, path) : new PlainFeed(handle, Math.min(bytes, limitBytes), path),
      );
    } catch (cause) {
      await handle.close();
      throw readFailed(path, cause);
    }
  }

  /** Offset of the next byte in the unpacked file. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * The next `bytes` bytes. Up to 4 MiB it is a view that lives until the next call; above that a copy of its own,
   * allocated as the bytes arrive. STREAM_INVALID if the file ends before; `what` names the thing in the message.
   */
  async read(bytes: number, what: string): Promise<Buffer> {
    if (bytes > windowBytes / 2) return this.#readLong(bytes, what);
    while (this.#end - this.#start < bytes) await this.#refill(bytes, what);
    const view = this.#window.subarray(this.#start, this.#start + bytes);
    this.#start += bytes;
    this.#offset += bytes;
    return view;
  }

  /** Passes over `bytes` bytes, which must be there. */
  async skip(bytes: number, what: string): Promise<void> {
    let left = bytes;
    while (left > 0) {
      const buffered = Math.min(left, this.#end - this.#start);
      this.#start += buffered;
      this.#offset += buffered;
      left -= buffered;
      if (left === 0) return;
      const seeked = this.feed.seek(left);
      this.#offset += seeked;
      left -= seeked;
      if (left > 0) await this.#refill(1, what);
    }
  }

  /** True if no byte follows. */
  async atEnd(): Promise<boolean> {
    if (this.#start < this.#end) return false;
    this.#start = this.#end = 0;
    this.#end = await this.feed.pull(this.#window);
    return this.#end === 0;
  }

  async close(): Promise<void> {
    await this.feed.close();
  }

  async #refill(bytes: number, what: string): Promise<void> {
    if (this.#window.length - this.#start < bytes || this.#start === this.#end) {
      this.#window.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const pulled = await this.feed.pull(this.#window.subarray(this.#end));
    if (pulled === 0)
      throw streamInvalid(`the file ends inside ${what}`, this.#offset + this.#end - this.#start);
    this.#end += pulled;
  }

  async #readLong(bytes: number, what: string): Promise<Buffer> {
    const known = this.feed.remaining();
    if (known !== null && known + this.#end - this.#start < bytes)
      throw streamInvalid(`the file ends inside ${what}`, this.#offset + known + this.#end - this.#start);
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      const piece = await this.read(Math.min(left, windowBytes / 2), what);
      pieces.push(Buffer.from(piece));
      left -= piece.length;
    }
    return Buffer.concat(pieces, bytes);
  }
}

/** Reads a descriptor that somebody else reads on from: never a byte more than asked for. */
import { Buffer } from 'node:buffer';
import { read as readCallback } from 'node:fs';
import { promisify } from 'node:util';
import { DormouseError } from '../errors.js';
import { streamInvalid, type ByteReader } from '../xenstream/frames/byte_reader.js';

const read = promisify(readCallback);
const windowBytes = 4 * 1024 * 1024;

export class FdSource implements ByteReader {
  readonly #window = Buffer.allocUnsafeSlow(windowBytes);
  #ahead: Buffer = Buffer.alloc(0);
  #offset = 0;

  constructor(private readonly fd: number) {}

  get offset(): number {
    return this.#offset;
  }

  /** The next bytes, which the next read gives again. STREAM_INVALID if there are fewer. */
  async peek(bytes: number): Promise<Buffer> {
    const ahead = Buffer.alloc(bytes);
    await this.#fill(ahead, 'its first bytes');
    this.#ahead = ahead;
    return ahead;
  }

  /** Up to 4 MiB it is a view that lives until the next call; above that it is allocated as the bytes arrive. */
  async read(bytes: number, what: string): Promise<Buffer> {
    if (bytes <= windowBytes) return this.#take(this.#window.subarray(0, bytes), what);
    const pieces: Buffer[] = [];
    for (let left = bytes; left > 0;) {
      const piece = await this.#take(Buffer.allocUnsafeSlow(Math.min(left, windowBytes)), what);
      pieces.push(piece);
      left -= piece.length;
    }
    return Buffer.concat(pieces, bytes);
  }

  async skip(bytes: number, what: string): Promise<void> {
    for (let left = bytes; left > 0;) left -= (await this.read(Math.min(left, windowBytes), what)).length;
  }

  /** What follows is not ours. */
  atEnd(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async #take(target: Buffer, what: string): Promise<Buffer> {
    const fromAhead = Math.min(this.#ahead.length, target.length);
    this.#ahead.copy(target, 0, 0, fromAhead);
    this.#ahead = this.#ahead.subarray(fromAhead);
    await this.#fill(target.subarray(fromAhead), what);
    this.#offset += target.length;
    return target;
  }

  async #fill(target: Buffer, what: string): Promise<void> {
    for (let at = 0; at < target.length;) {
      const { bytesRead } = await read(this.fd, target, at, target.length - at, null).catch(
        (cause: unknown) => {
          throw new DormouseError(
            'IMAGE_READ_FAILED',
            `the stream cannot be read: ${(cause as Error).message}`,
            { cause },
          );
        },
      );
      if (bytesRead === 0) throw streamInvalid(`the stream ends inside ${what}`, this.#offset + at);
      at += bytesRead;
    }
  }
}

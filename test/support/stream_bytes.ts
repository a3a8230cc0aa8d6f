/** Streams of ours in memory: read from a buffer, written through a pipe's file. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { streamInvalid, type ByteReader } from '../../src/xenstream/frames/byte_reader.js';

/** What a descriptor would give. */
export class BufferSource implements ByteReader {
  offset = 0;
  constructor(private readonly bytes: Buffer) {}

  read(bytes: number, what: string): Promise<Buffer> {
    if (bytes > this.bytes.length - this.offset)
      return Promise.reject(streamInvalid(`the stream ends inside ${what}`, this.bytes.length));
    const at = this.offset;
    this.offset += bytes;
    return Promise.resolve(this.bytes.subarray(at, at + bytes));
  }

  async skip(bytes: number, what: string): Promise<void> {
    await this.read(bytes, what);
  }

  atEnd(): Promise<boolean> {
    return Promise.resolve(this.offset === this.bytes.length);
  }
}

/** What `write` puts to a descriptor. */
export async function writtenBy(write: (fd: number) => Promise<void> | void): Promise<Buffer> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-stream-'));
  const path = join(dir, 'stream');
  const fd = openSync(path, 'wx');
  try {
    await write(fd);
    return readFileSync(path);
  } finally {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  }
}

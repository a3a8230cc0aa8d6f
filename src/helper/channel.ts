/**
 * libxl's side of a save helper: messages on descriptor 1, replies on descriptor 0. A message is a length of 16 bits, its
 * number of 16 bits and its arguments, packed, in the machine's byte order; a reply is an int.
 * Source: tools/libs/light/libxl_save_msgs_gen.pl and libxl_save_callout.c of Xen 4.17, as a specification.
 */
import { Buffer } from 'node:buffer';
import { read as readCallback } from 'node:fs';
import { promisify } from 'node:util';
import { DormouseError } from '../errors.js';
import { writeWhole } from '../transfer/write_whole.js';

const read = promisify(readCallback);

const message = {
  log: 1,
  progress: 2,
  suspend: 3,
  staticDataDone: 8,
  restoreResults: 9,
  complete: 10,
} as const;

/** Levels of libxentoollog. */
export const logLevel = { debug: 1, verbose: 2, detail: 3, info: 5, warn: 7, error: 8 } as const;

const fd = { replies: 0, messages: 1 } as const;
const context = 'xc';
const maxText = 8192;

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value >>> 0);
  return out;
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value.slice(0, maxText).replaceAll('\0', ' ') + '\0', 'utf8');
  return Buffer.concat([u32(bytes.length), bytes]);
}

export class LibxlChannel {
  #doing = '';
  #percent = 0;

  log(level: number, line: string): void {
    this.#send(message.log, u32(level), u32(-1), text(context), text(line));
  }

  say(line: string): void {
    this.log(logLevel.info, line);
  }

  /** Told to libxl as often as the percentage changes; where it grows by less than five that is a detail to it. */
  progress(doing: string, done: number, total: number): void {
    const percent = total === 0 ? 0 : Math.floor((100 * done) / total);
    if (percent === this.#percent && doing === this.#doing) return;
    this.#percent = percent;
    this.#doing = doing;
    this.#send(message.progress, text(context), text(doing), u64(done), u64(total));
  }

  /** Has libxl bring the guest to its suspend point. SUSPEND_TIMEOUT if it could not. */
  async suspend(): Promise<void> {
    if ((await this.#ask(message.suspend)) === 1) return;
    // How far the guest came only libxl knows.
    throw new DormouseError('SUSPEND_TIMEOUT', 'libxl could not suspend the guest', { guest: 'unknown' });
  }

  /** The processor policy is set, or `missing` says what of it the image did not bring. */
  async staticDataDone(missing: number): Promise<void> {
    if ((await this.#ask(message.staticDataDone, u32(missing))) === 0) return;
    throw new DormouseError('RESTORE_FAILED', 'libxl could not set the processor policy');
  }

  restoreResults(storeFrame: number, consoleFrame: number): void {
    this.#send(message.restoreResults, u64(storeFrame), u64(consoleFrame));
  }

  /** The end: `result` is 0 or -1, `errno` for libxl's messages. */
  async complete(result: 0 | -1, errno: number): Promise<void> {
    await this.#ask(message.complete, u32(result), u32(errno));
  }

  #send(number: number, ...parts: Buffer[]): void {
    const body = Buffer.concat([Buffer.alloc(2), ...parts]);
    body.writeUInt16LE(number);
    const length = Buffer.alloc(2);
    length.writeUInt16LE(body.length);
    try {
      writeWhole(fd.messages, Buffer.concat([length, body]));
    } catch (cause) {
      throw new DormouseError('HOST_DIED', 'libxl does not listen any more', { cause });
    }
  }

  async #ask(number: number, ...parts: Buffer[]): Promise<number> {
    this.#send(number, ...parts);
    const reply = Buffer.alloc(4);
    for (let at = 0; at < reply.length;) {
      const { bytesRead } = await read(fd.replies, reply, at, reply.length - at, null);
      if (bytesRead === 0) throw new DormouseError('HOST_DIED', 'libxl does not answer any more');
      at += bytesRead;
    }
    return reply.readInt32LE(0);
  }
}

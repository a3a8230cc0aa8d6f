/** Where the bytes of a stream come from, and what is said of bytes that are not as they should be. */
import type { Buffer } from 'node:buffer';
import { DormouseError } from '../../errors.js';

/** Where a parser's bytes come from: a ByteSource. */
export interface ByteReader {
  readonly offset: number;
  read(bytes: number, what: string): Promise<Buffer>;
  skip(bytes: number, what: string): Promise<void>;
  atEnd(): Promise<boolean>;
}

/** The stream is damaged or breaks the specification; `offset` counts bytes of the unpacked file. */
export function streamInvalid(message: string, offset: number): DormouseError {
  return new DormouseError('STREAM_INVALID', `${message} (at byte ${offset})`, { place: { offset } });
}
/** The stream is of a kind that is not taken. */
export function streamUnsupported(message: string, offset: number): DormouseError {
  return new DormouseError('STREAM_UNSUPPORTED', `${message} (at byte ${offset})`, { place: { offset } });
}

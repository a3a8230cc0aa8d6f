/** Heads of the stream and of its frames as bytes. */
import { Buffer } from 'node:buffer';
import type { DormouseError } from '../../errors.js';
import { type Field, isZero, MAX_CHUNK_SPAN, MAX_MANIFEST_BYTES } from '../../image/format.js';
import { storedHash } from '../../image/frame.js';
import * as layout from './layout.js';
import { streamInvalid, streamUnsupported } from './byte_reader.js';

const { FRAME_HEAD, FRAME_KINDS, STREAM_HEAD } = layout;

const field = (bytes: Buffer, [offset, size]: Field): Buffer => bytes.subarray(offset, offset + size);
const number = (bytes: Buffer, [offset, size]: Field): number => bytes.readUIntLE(offset, size);
const hex = (bytes: Buffer, at: Field): string => field(bytes, at).toString('hex');

export function encodeStreamHead(streamId: Buffer): Buffer {
  const head = Buffer.alloc(layout.STREAM_HEAD_SIZE);
  const put = ([offset, size]: Field, value: number): number => head.writeUIntLE(value, offset, size);
  head.write(layout.STREAM_MAGIC, 'hex');
  put(STREAM_HEAD.major, layout.STREAM_MAJOR);
  put(STREAM_HEAD.minor, layout.STREAM_MINOR);
  put(STREAM_HEAD.headSize, layout.STREAM_HEAD_SIZE);
  streamId.copy(head, STREAM_HEAD.streamId[0]);
  head.write(storedHash(head.subarray(0, STREAM_HEAD.checksum[0])), STREAM_HEAD.checksum[0], 'hex');
  return head;
}

/** The stream's id, and whether it is of a newer minor version. STREAM_INVALID; STREAM_UNSUPPORTED for another major version or a flag that is unknown. */
export function decodeStreamHead(head: Buffer, offset: number): { streamId: Buffer; newer: boolean } {
  const invalid = (what: string): DormouseError => streamInvalid(what, offset);
  if (hex(head, STREAM_HEAD.magic) !== layout.STREAM_MAGIC) throw invalid('not a stream of dormouse');
  if (storedHash(head.subarray(0, STREAM_HEAD.checksum[0])) !== hex(head, STREAM_HEAD.checksum))
    throw invalid("the stream head's checksum differs");
  const [major, minor] = [number(head, STREAM_HEAD.major), number(head, STREAM_HEAD.minor)];
  if (major !== layout.STREAM_MAJOR)
    throw streamUnsupported(`stream version ${major}.${minor}; this one reads 1.x`, offset);
  if (!isZero(field(head, STREAM_HEAD.mustUnderstand)))
    throw streamUnsupported('it needs features of a newer dormouse', offset);
  const fixed =
    number(head, STREAM_HEAD.headSize) === layout.STREAM_HEAD_SIZE &&
    (minor > layout.STREAM_MINOR || isZero(field(head, STREAM_HEAD.reserved)));
  if (!fixed) throw invalid('impossible values in the stream head');
  return { streamId: Buffer.from(field(head, STREAM_HEAD.streamId)), newer: minor > layout.STREAM_MINOR };
}

export interface FrameHead {
  readonly kind: layout.FrameKind;
  readonly bodySize: number;
  readonly bodyHash: string;
}

const mostBytes = {
  begin: MAX_MANIFEST_BYTES,
  pages: MAX_CHUNK_SPAN,
  end: MAX_MANIFEST_BYTES,
} as const;

/** Nothing of it is believed before its own checksum is right. STREAM_INVALID. */
export function decodeFrameHead(
  head: Buffer,
  streamId: Buffer,
  expectedNumber: number,
  offset: number,
): FrameHead {
  const hashed = Buffer.concat([head.subarray(0, FRAME_HEAD.headHash[0]), streamId]);
  if (storedHash(hashed) !== hex(head, FRAME_HEAD.headHash))
    throw streamInvalid(`the head of frame ${expectedNumber} is damaged`, offset);
  const kind = (Object.keys(FRAME_KINDS) as layout.FrameKind[]).find(
    (name) => FRAME_KINDS[name] === number(head, FRAME_HEAD.kind),
  );
  const bodySize = number(head, FRAME_HEAD.bodySize);
  const fixed =
    hex(head, FRAME_HEAD.magic) === layout.FRAME_MAGIC &&
    number(head, FRAME_HEAD.flags) === 0 &&
    number(head, FRAME_HEAD.headSize) === layout.FRAME_HEAD_SIZE;
  if (!fixed || kind === undefined || bodySize > mostBytes[kind])
    throw streamInvalid(`impossible values in the head of frame ${expectedNumber}`, offset);
  const isNumber = number(head, FRAME_HEAD.number);
  if (isNumber !== expectedNumber)
    throw streamInvalid(`frame ${isNumber} where frame ${expectedNumber} should be`, offset);
  return { kind, bodySize, bodyHash: hex(head, FRAME_HEAD.bodyHash) };
}

/**
 * Frames between the embedded host and its tools, over a Unix stream socket: a 32-bit little-endian length, then that
 * many bytes of MessagePack. A tool sends requests `{id, op, args}` and may have many under way; the host answers each
 * with `{id, ok}` or `{id, error}` and sends events `{event}` in between. The first request is `hello`.
 */
import { Packr, Unpackr } from 'msgpackr';
import * as z from 'zod';
import { shutdownReasons } from '../../domain/state.js';
import { asDormouseError, DormouseError, guestStates, isErrorCode } from '../../errors.js';
import type { DomainHappening } from '../events.js';

/** Raised when a request, reply or event changes its meaning. Host and tool must agree on it. */
export const protocolVersion = 4;
/** Longest frame either side takes. */
export const maxFrameBytes = 64 * 1024 * 1024;

export type HostEvent =
  | { readonly kind: 'domain'; readonly domain: DomainHappening }
  | { readonly kind: 'watch'; readonly watch: number; readonly path: string };

export interface RequestFrame {
  readonly id: number;
  readonly op: string;
  readonly args: unknown;
}

const placeSchema = z.object({
  domid: z.number().optional(),
  pfn: z.number().optional(),
  chunk: z.number().optional(),
  offset: z.number().optional(),
  path: z.string().optional(),
});
const requestSchema = z.object({
  id: z.number().int().nonnegative(),
  op: z.string().max(64),
  args: z.unknown(),
});
const domainEventSchema = z.object({
  type: z.enum(['created', 'shutdown', 'dying', 'released']),
  domid: z.number(),
  uuid: z.string(),
  reason: z.enum(shutdownReasons).nullable(),
});
const eventSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('domain'), domain: domainEventSchema }),
  z.object({ kind: z.literal('watch'), watch: z.number(), path: z.string() }),
]);
const errorSchema = z.object({
  code: z.string(),
  message: z.string(),
  guest: z.string(),
  place: placeSchema,
});
const replySchema = z.union([
  z.object({ event: eventSchema }),
  z.object({ id: z.number(), error: errorSchema }),
  z.object({ id: z.number(), ok: z.unknown() }),
]);
export type WireError = z.infer<typeof errorSchema>;

const packr = new Packr({ useRecords: false, variableMapSize: true });

/** One frame, length included. HOST_PROTOCOL where it would exceed the cap. */
export function encodeFrame(message: unknown): Buffer {
  const body = packr.pack(message);
  if (body.length > maxFrameBytes)
    throw new DormouseError('HOST_PROTOCOL', `a message of ${body.length} bytes exceeds ${maxFrameBytes}`);
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32LE(body.length, 0);
  body.copy(frame, 4);
  return frame;
}

/** Cuts a byte stream into messages. Any throw (HOST_PROTOCOL) means that the stream cannot be followed further. */
export class FrameDecoder {
  #chunks: Buffer[] = [];
  #bytes = 0;
  /** Its own, so that what one peer sends cannot change how another's bytes are read. */
  readonly #unpackr = new Unpackr({ useRecords: false });

  push(chunk: Buffer): unknown[] {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    const messages: unknown[] = [];
    for (;;) {
      const body = this.#takeFrame();
      if (!body) return messages;
      messages.push(this.#decode(body));
    }
  }

  #takeFrame(): Buffer | undefined {
    if (this.#bytes < 4) return undefined;
    const length = this.#peekLength();
    if (length > maxFrameBytes)
      throw new DormouseError('HOST_PROTOCOL', `a frame of ${length} bytes exceeds ${maxFrameBytes}`);
    if (this.#bytes < 4 + length) return undefined;
    const all = this.#joined();
    this.#chunks = all.length > 4 + length ? [all.subarray(4 + length)] : [];
    this.#bytes -= 4 + length;
    return all.subarray(4, 4 + length);
  }

  #peekLength(): number {
    const first = this.#chunks[0];
    return (first !== undefined && first.length >= 4 ? first : this.#joined()).readUInt32LE(0);
  }

  #joined(): Buffer {
    const [only] = this.#chunks;
    const all = only !== undefined && this.#chunks.length === 1 ? only : Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }

  #decode(body: Buffer): unknown {
    try {
      return this.#unpackr.unpack(body) as unknown;
    } catch (thrown) {
      throw new DormouseError('HOST_PROTOCOL', 'a frame does not decode', { cause: thrown });
    }
  }
}

/** The host's side: checks the envelope, not the arguments. */
export function parseRequest(message: unknown): RequestFrame {
  const parsed = requestSchema.safeParse(message);
  if (!parsed.success) throw new DormouseError('HOST_PROTOCOL', 'not a request');
  return parsed.data;
}

export type ReplyFrame = z.infer<typeof replySchema>;

/** The tool's side. */
export function parseReply(message: unknown): ReplyFrame {
  const parsed = replySchema.safeParse(message);
  if (!parsed.success) throw new DormouseError('HOST_PROTOCOL', 'the host sent something that is no reply');
  return parsed.data;
}

export function errorToWire(thrown: unknown): WireError {
  const { code, message, guest, place } = asDormouseError(thrown);
  return { code, message, guest, place };
}

export function errorFromWire({ code, message, guest, place }: WireError): DormouseError {
  if (!isErrorCode(code))
    return new DormouseError('HOST_PROTOCOL', `the host sent an unknown error ${code}: ${message}`);
  const known = Object.fromEntries(Object.entries(place).filter(([, value]) => value !== undefined));
  const guestState = guestStates.find((state) => state === guest);
  return new DormouseError(code, message, {
    place: known,
    ...(guestState !== undefined && { guest: guestState }),
  });
}

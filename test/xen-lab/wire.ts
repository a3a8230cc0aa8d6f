/**
 * Framing between a test and the agent in dom0. A frame is: length of the rest (u32 LE), kind (u8), channel (u32 LE),
 * payload. Each request opens a channel of the caller's choice, so that several run at once over one connection.
 */
export const Kind = {
  /** Agent: first frame of a connection. */
  hello: 0,
  /** Caller: JSON ExecRequest. */
  exec: 1,
  /** Caller: JSON {path, mode}; then data, end. */
  put: 2,
  /** Caller: JSON {path, from}; the agent answers with the file's data from that byte on, then done. */
  get: 3,
  /** Standard output, or a file's content. */
  data: 4,
  stderr: 5,
  /** Caller: no more data. */
  end: 6,
  /** Agent: JSON Done; closes the channel. */
  done: 7,
  /** Agent: JSON {message}; closes the channel. */
  failed: 8,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

export interface ExecRequest {
  script: string;
  timeoutMs: number;
}

export interface Done {
  /** Exit code; 128 + signal number where a signal ended it, as a shell has it. */
  code: number;
  timedOut: boolean;
}

export interface Frame {
  kind: Kind;
  channel: number;
  payload: Buffer;
}

/** Longest payload in bytes; a longer one is refused by the reader. */
export const maxPayloadBytes = 1 << 20;

/** One frame's bytes. An object is sent as JSON. */
export function encode(kind: Kind, channel: number, content: Uint8Array | object = Buffer.alloc(0)): Buffer {
  const payload = content instanceof Uint8Array ? content : Buffer.from(JSON.stringify(content));
  const head = Buffer.alloc(9);
  head.writeUInt32LE(payload.length + 5, 0);
  head.writeUInt8(kind, 4);
  head.writeUInt32LE(channel, 5);
  return Buffer.concat([head, payload]);
}

/** Cuts a stream of bytes into frames, however the bytes arrive. */
export class FrameReader {
  private pending: Buffer = Buffer.alloc(0);

  /** Takes more bytes; returns the frames they complete. Throws RangeError on a length no frame has. */
  push(bytes: Buffer): Frame[] {
    this.pending = this.pending.length === 0 ? bytes : Buffer.concat([this.pending, bytes]);
    const frames: Frame[] = [];
    let at = 0;
    while (this.pending.length - at >= 4) {
      const length = this.pending.readUInt32LE(at);
      if (length < 5 || length > maxPayloadBytes + 5) throw new RangeError(`frame of ${length} bytes`);
      if (this.pending.length - at - 4 < length) break;
      frames.push({
        kind: this.pending.readUInt8(at + 4) as Kind,
        channel: this.pending.readUInt32LE(at + 5),
        payload: this.pending.subarray(at + 9, at + 4 + length),
      });
      at += 4 + length;
    }
    this.pending = this.pending.subarray(at);
    return frames;
  }
}

/** A frame's JSON payload; both ends are ours, so its shape is trusted. */
export function json(frame: Frame): unknown {
  return JSON.parse(frame.payload.toString());
}

/** Cuts what xenstored sends into its messages (xen/io/xs_wire.h). */
import { Buffer } from 'node:buffer';
import { DormouseError } from '../../errors.js';

export const headerBytes = 16;
export const maxPayloadBytes = 4096;

export interface XenstoreMessage {
  readonly type: number;
  readonly id: number;
  readonly payload: Buffer;
}

export class XenstoreDecoder {
  #received = Buffer.alloc(0);

  /** The messages that are whole with these bytes. HOST_UNAVAILABLE for one that no xenstored may send. */
  *take(chunk: Buffer): Generator<XenstoreMessage> {
    this.#received = Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= headerBytes) {
      const [type, id, , length] = [0, 4, 8, 12].map((at) => this.#received.readUInt32LE(at)) as [
        number,
        number,
        number,
        number,
      ];
      if (length > maxPayloadBytes)
        throw new DormouseError('HOST_UNAVAILABLE', 'xenstore: xenstored sent an oversized message');
      const end = headerBytes + length;
      if (this.#received.length < end) return;
      const payload = this.#received.subarray(headerBytes, end);
      this.#received = this.#received.subarray(end);
      yield { type, id, payload };
    }
  }
}

/** A picture as PNG (ISO/IEC 15948): three bytes a pixel, no filter. */
import { Buffer } from 'node:buffer';
import { crc32, deflateSync } from 'node:zlib';

export type Colour = readonly [red: number, green: number, blue: number];

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

function chunk(kind: string, body: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(kind, 'latin1'), body]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(body.length);
  sum.writeUInt32BE(crc32(named));
  return Buffer.concat([length, named, sum]);
}

export class Picture {
  /** Of each row a byte for its filter, then the pixels. */
  readonly #rows: Buffer;
  readonly #rowBytes: number;

  /** All white. */
  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.#rowBytes = 1 + 3 * width;
    this.#rows = Buffer.alloc(height * this.#rowBytes, 0xff);
    for (let y = 0; y < height; y++) this.#rows[y * this.#rowBytes] = 0;
  }

  /** A square of so many pixels, which lies within. */
  square(left: number, top: number, size: number, colour: Colour): void {
    const line = Buffer.alloc(3 * size, Buffer.from(colour));
    for (let y = top; y < top + size; y++) line.copy(this.#rows, y * this.#rowBytes + 1 + 3 * left);
  }

  /** The whole file; `title` is Latin-1. */
  encode(title: string): Buffer {
    const head = Buffer.alloc(13);
    head.writeUInt32BE(this.width, 0);
    head.writeUInt32BE(this.height, 4);
    // 8 bits, red, green and blue; deflate, filters of type 0, not interlaced.
    head.set([8, 2, 0, 0, 0], 8);
    return Buffer.concat([
      signature,
      chunk('IHDR', head),
      chunk('tEXt', Buffer.from(`Title\0${title}`, 'latin1')),
      chunk('IDAT', deflateSync(this.#rows)),
      chunk('IEND', Buffer.alloc(0)),
    ]);
  }
}

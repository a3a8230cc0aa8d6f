/** LZ4 blocks of at most 16 MiB. */
import { Buffer } from 'node:buffer';
import { addon } from '../addon.js';
import { DormouseError } from '../errors.js';

interface NativeCodec {
  readonly lz4MaxBlock: number;
  lz4Compress(src: Uint8Array, dst: Uint8Array, acceleration: number): number;
  lz4Decompress(src: Uint8Array, dst: Uint8Array): boolean;
}
const codec = (): NativeCodec => addon('codec') as NativeCodec;

function checkSize(bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0 || bytes > codec().lz4MaxBlock)
    throw new RangeError(`a block of ${bytes} bytes; the most is ${codec().lz4MaxBlock}`);
}

/**
 * The block compressed into at most `capacity` bytes, or null where it does not fit (store it as it is then).
 * Acceleration 1 is the densest; larger is faster. RangeError above 16 MiB.
 */
export function lz4Compress(block: Uint8Array, capacity = block.length, acceleration = 1): Buffer | null {
  checkSize(block.length);
  checkSize(capacity);
  const out = Buffer.allocUnsafe(capacity);
  const stored = codec().lz4Compress(block, out, acceleration);
  return stored === 0 ? null : out.subarray(0, stored);
}

/** The block of exactly `exactBytes` that was compressed. Throws IMAGE_DAMAGED for anything else. */
export function lz4Decompress(stored: Uint8Array, exactBytes: number): Buffer {
  checkSize(exactBytes);
  const out = Buffer.allocUnsafe(exactBytes);
  if (stored.length > codec().lz4MaxBlock || !codec().lz4Decompress(stored, out))
    throw new DormouseError('IMAGE_DAMAGED', `not an LZ4 block of ${exactBytes} bytes`);
  return out;
}

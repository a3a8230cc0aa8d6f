/** What changed of some pages, at most 64 KiB of them: XOR against what they were, then one LZ4 block. */
import { Buffer } from 'node:buffer';
import { addon } from '../addon.js';
import { DormouseError } from '../errors.js';

interface NativeDelta {
  readonly deltaMaxBytes: number;
  deltaCompress(now: Uint8Array, base: Uint8Array, dst: Uint8Array): number;
  deltaApply(src: Uint8Array, pages: Uint8Array): boolean;
}
const codec = (): NativeDelta => addon('codec') as NativeDelta;

function checkSize(bytes: number): void {
  if (bytes > codec().deltaMaxBytes)
    throw new RangeError(`a delta of ${bytes} bytes; the most is ${codec().deltaMaxBytes}`);
}

/** What makes `now` of `base`, or null where it does not fit `capacity`. RangeError for other sizes than one, up to 64 KiB. */
export function deltaCompress(now: Uint8Array, base: Uint8Array, capacity = now.length): Buffer | null {
  checkSize(now.length);
  if (base.length !== now.length) throw new RangeError(`a base of ${base.length} bytes, not ${now.length}`);
  const out = Buffer.allocUnsafe(capacity);
  const stored = codec().deltaCompress(now, base, out);
  return stored === 0 ? null : out.subarray(0, stored);
}

/**
 * Makes of the base in `pages` what was coded. Throws IMAGE_DAMAGED for what is no delta of that size, and `pages` is then as it
 * was. A wrong base is not noticed: what results needs a checksum of its own.
 */
export function deltaApply(stored: Uint8Array, pages: Uint8Array): void {
  checkSize(pages.length);
  if (stored.length > 2 * codec().deltaMaxBytes || !codec().deltaApply(stored, pages))
    throw new DormouseError('IMAGE_DAMAGED', `not a delta of ${pages.length} bytes`);
}

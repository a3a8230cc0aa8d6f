/** SHA-256 of a region, whatever its size: Node.js 20 takes less than 2 GiB at once. */
import type { Buffer } from 'node:buffer';
import { createHash } from 'node:crypto';

const sliceBytes = 2 ** 28;

/** 64 hex digits. */
export function sha256(bytes: Buffer, slice = sliceBytes): string {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.length; at += slice) hash.update(bytes.subarray(at, at + slice));
  return hash.digest('hex');
}

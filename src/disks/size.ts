/** How large a disk is, be it a file or a block device. */
import type { FileHandle } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import type { KeptDisk } from './kept.js';
import { deviceBytes } from './native.js';
import { withFile } from './with_file.js';

export const bytesOf = (path: string): Promise<number> => withFile(path, 'r', bytesOfFile);

export async function bytesOfFile(file: FileHandle): Promise<number> {
  const found = await file.stat();
  return found.isBlockDevice() ? deviceBytes(file.fd) : found.size;
}

/** Of files that are open already, so that they are those which are used. STORE_DAMAGED, HOST_LACKS. */
export function requireBytes({ name, bytes, where }: KeptDisk, target: number, source: number): void {
  if (source !== bytes)
    throw new DormouseError(
      'STORE_DAMAGED',
      `disk ${name}: ${where} has ${source} bytes instead of ${bytes}`,
    );
  if (target !== bytes)
    throw new DormouseError('HOST_LACKS', `disk ${name} has ${target} bytes now, and had ${bytes}`);
}

/** How large a disk is, be it a file or a block device. */
import { open } from 'node:fs/promises';
import { deviceBytes } from './native.js';

export async function bytesOf(path: string): Promise<number> {
  const file = await open(path, 'r');
  try {
    const found = await file.stat();
    return found.isBlockDevice() ? deviceBytes(file.fd) : found.size;
  } finally {
    await file.close();
  }
}

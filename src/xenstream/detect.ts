/** What kind of file a path holds. */
import { Buffer } from 'node:buffer';
import { HEADER_MAGIC } from '../image/format.js';
import { openImageFile } from '../image/file.js';
import { ByteSource } from './byte_source.js';
import { xlMagic } from './stream_format.js';

export type FileFormat = 'dormouse' | 'xl' | 'xl-gzip' | 'unknown';

/** Tells an image from an `xl save` file, plain or gzip, by its first bytes. IMAGE_NOT_FOUND, IMAGE_READ_FAILED. */
export async function detectFormat(path: string): Promise<FileFormat> {
  const head = await firstBytes(path);
  if (head.subarray(0, 8).equals(Buffer.from(HEADER_MAGIC, 'hex'))) return 'dormouse';
  if (head.equals(xlMagic)) return 'xl';
  if (head[0] !== 0x1f || head[1] !== 0x8b) return 'unknown';
  const source = await ByteSource.open(path);
  try {
    const unpacked = await source.read(xlMagic.length, 'the magic');
    return unpacked.equals(xlMagic) ? 'xl-gzip' : 'unknown';
  } catch {
    return 'unknown';
  } finally {
    await source.close();
  }
}

async function firstBytes(path: string): Promise<Buffer> {
  const { file: handle } = await openImageFile(path);
  try {
    const head = Buffer.alloc(xlMagic.length);
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

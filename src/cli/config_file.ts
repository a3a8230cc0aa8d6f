/** Reads a configuration file within its limit: a regular file of UTF-8 text. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { DormouseError } from '../errors.js';
import { configLimits } from './domain_config.js';

const refused = (path: string, why: string, cause?: unknown): DormouseError =>
  new DormouseError('CONFIG_INVALID', `${path} ${why}`, { cause, place: { path } });

/** The text of `path`. CONFIG_INVALID if it cannot be read, is too long or is not UTF-8. */
export async function readConfigFile(path: string): Promise<string> {
  const bytes = await readAtMost(path, configLimits.bytes + 1).catch((thrown: unknown) => {
    throw refused(path, 'cannot be read', thrown);
  });
  if (!bytes) throw refused(path, 'is not a regular file');
  return decodeConfig(path, bytes);
}

/** The text of what `path` holds. CONFIG_INVALID. */
export function decodeConfig(path: string, bytes: Buffer): string {
  if (bytes.length > configLimits.bytes) throw refused(path, `is larger than ${configLimits.bytes} bytes`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (thrown) {
    throw refused(path, 'is not UTF-8 text', thrown);
  }
}

/** Null for what is not a regular file; O_NONBLOCK keeps a FIFO from blocking the open. */
async function readAtMost(path: string, most: number): Promise<Buffer | null> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!(await file.stat()).isFile()) return null;
    const buffer = Buffer.alloc(most);
    let filled = 0;
    for (;;) {
      const { bytesRead } = await file.read(buffer, filled, most - filled, null);
      filled += bytesRead;
      if (bytesRead === 0 || filled === most) return buffer.subarray(0, filled);
    }
  } finally {
    await file.close();
  }
}

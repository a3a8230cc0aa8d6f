/** A file that is open for as long as it is used. */
import { type FileHandle, open } from 'node:fs/promises';

export async function withFile<T>(
  path: string,
  flags: 'r' | 'r+' | number,
  use: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const file = await open(path, flags);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

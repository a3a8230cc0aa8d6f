/** Folders that may have to be made first. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes the folder, and those above it that are missing, with that mode; one that is there stays as it is. Throws what mkdir or
 * stat throws. Node.js 20 has `recursive` for this, which turns for ever where a folder cannot be made and the one above is
 * there, as in /proc.
 */
export function makeFolders(path: string, mode: number): void {
  if (made(path, mode)) return;
  const above = dirname(path);
  if (above !== path) makeFolders(above, mode);
  if (!made(path, mode)) mkdirSync(path, { mode });
}

/** Whether it is there now. False where the folder above is missing. */
function made(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    // A folder that is there may be told as one that cannot be made, as on a file system for reading only.
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return true;
    throw thrown;
  }
}

/** Whether the image that decides about a domain has its name. */
import { closeSync, constants, openSync, readSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { syncFolder } from '../image/file.js';
import { HEADER, HEADER_MAGIC } from '../image/format.js';
import type { Ending } from './contract.js';

/** As an image appears under its name only when it is whole, its first bytes tell. */
function imageIdAt(path: string): string | null {
  // A FIFO and a device are no images, and may do something when they are opened.
  if (!statSync(path).isFile()) return null;
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const [magicAt, magicSize] = HEADER.magic;
    const [idAt, idSize] = HEADER.imageId;
    const head = Buffer.alloc(idAt + idSize);
    if (readSync(fd, head, 0, head.length, 0) !== head.length) return null;
    if (head.toString('hex', magicAt, magicAt + magicSize) !== HEADER_MAGIC) return null;
    return head.toString('hex', idAt, idAt + idSize);
  } finally {
    closeSync(fd);
  }
}

/** No file can be behind that name; with other errors it may be there and not be readable now. */
const leadsNowhere: readonly (string | undefined)[] = ['ENOENT', 'ENOTDIR', 'ELOOP'];

/** `there`: with its name on disk, whatever became of the process that wrote it. `unknown`: it cannot be told. */
export function findImage({ path, imageId }: Ending): 'there' | 'absent' | 'unknown' {
  try {
    if (imageIdAt(path) !== imageId) return 'absent';
    syncFolder(dirname(path));
    return 'there';
  } catch (thrown) {
    return leadsNowhere.includes((thrown as NodeJS.ErrnoException).code) ? 'absent' : 'unknown';
  }
}

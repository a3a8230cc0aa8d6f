/** What became longer than it was: bytes behind a footer, which therefore is not where it is looked for. */
import type { FileHandle } from 'node:fs/promises';
import { readExactly } from './file.js';
import { FOOTER, FOOTER_MAGIC } from './format.js';
import { pageBytes } from '../pfn/page_words.js';

/** Pages at the end that are looked through. */
const mostPages = 256;

/** How many bytes there are behind the end that a footer tells of; null where none is found. For a sentence, not for trust. */
export async function bytesBehindFooter(file: FileHandle, size: number): Promise<number | null> {
  const last = Math.floor(size / pageBytes) - 1;
  const [magicAt, magicSize] = FOOTER.magic;
  const [sizeAt] = FOOTER.fileSize;
  for (let page = last; page > Math.max(0, last - mostPages); page--) {
    const bytes = await readExactly(file, page * pageBytes, pageBytes);
    const end = (page + 1) * pageBytes;
    if (bytes.toString('hex', magicAt, magicAt + magicSize) !== FOOTER_MAGIC) continue;
    return end < size && bytes.readBigUInt64LE(sizeAt) === BigInt(end) ? size - end : null;
  }
  return null;
}

/** The sentence for it. */
export const longerBy = (bytes: number): string =>
  `the file is ${bytes} byte${bytes === 1 ? '' : 's'} longer than the image in it: its footer is not at the end`;

/** What is said of a file that does not end with a footer. */
export async function whyNoFooter(file: FileHandle, size: number): Promise<string> {
  const more = await bytesBehindFooter(file, size);
  return more === null ? 'there is no footer: the file was cut short or never completed' : longerBy(more);
}

/** Sizes and offsets of a footer, looked at together. */
import { FOOTER, FORMAT_MAJOR, FORMAT_MINOR, REGIONS, wholePages, type Field } from './format.js';
import { numberAt } from './parse.js';
import { pageBytes } from '../pfn/page_words.js';

/** Whether chunks and regions make up the file, by its footer. */
export function tiles(page: Buffer, fileSize: number): boolean {
  const get = (field: Field) => numberAt(page, field);
  let at = get(FOOTER.chunksEnd);
  for (const name of REGIONS) {
    if (get(FOOTER[`${name}Offset`]) !== at) return false;
    at += wholePages(get(FOOTER[`${name}Size`]));
  }
  const end = fileSize - pageBytes;
  return (
    (numberAt(page, FOOTER.minor) > FORMAT_MINOR ? at <= end : at === end) &&
    get(FOOTER.fileSize) === fileSize &&
    get(FOOTER.chunksOffset) === pageBytes &&
    get(FOOTER.chunksEnd) % pageBytes === 0 &&
    get(FOOTER.major) === FORMAT_MAJOR &&
    get(FOOTER.footerSize) === pageBytes
  );
}

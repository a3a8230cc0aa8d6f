/**
 * A guest whose memory is a mixture of real bytes: an idle PV guest's image with every zero page replaced from the
 * corpus. Its page tables stay its own, so that saving it canonicalises as a real guest's save does.
 */
import { Buffer } from 'node:buffer';
import { isZeroPage } from '../src/pfn/page_scan.js';
import { ImageReader, type PageEntry } from '../src/image/reader.js';
import { ImageWriter } from '../src/image/writer.js';
import { pageBytes, descriptor } from '../src/pfn/page_words.js';
import { classNumber } from '../src/pfn/counts.js';

const batchPages = 256;

function desc(pfn: number, kind: PageEntry['pageClass'], type: number): bigint {
  return descriptor(pfn, classNumber(kind), type);
}

/** Hands out the corpus page by page; starts again at its end. */
class Corpus {
  private at = 0;
  constructor(private readonly bytes: Buffer) {}
  next(): Buffer {
    if (this.at + pageBytes > this.bytes.length) this.at = 0;
    this.at += pageBytes;
    return this.bytes.subarray(this.at - pageBytes, this.at);
  }
}

function pageOf(
  reader: ImageReader,
  entry: PageEntry,
  corpus: Corpus,
): { desc: bigint; body: Buffer | null } {
  const { pfn, type } = entry;
  if (entry.pageClass === 'zero' && type === 0) {
    const page = corpus.next();
    return isZeroPage(page)
      ? { desc: desc(pfn, 'zero', 0), body: null }
      : { desc: desc(pfn, 'data', 0), body: page };
  }
  const hasBody = entry.pageClass === 'data' || entry.pageClass === 'table';
  return { desc: desc(pfn, entry.pageClass, type), body: hasBody ? reader.readPages([pfn]) : null };
}

/** Writes `outPath` from the image of an idle guest and the corpus. */
export async function mixImage(basePath: string, outPath: string, corpusBytes: Buffer): Promise<void> {
  const reader = await ImageReader.open(basePath, { lanes: 2 });
  const writer = await ImageWriter.create(outPath, {
    nrPfns: reader.nrPfns,
    lanes: 1,
    consistency: reader.header.consistency,
  });
  try {
    const corpus = new Corpus(corpusBytes);
    for (let first = 0; first < reader.nrPfns; first += batchPages) {
      const count = Math.min(batchPages, reader.nrPfns - first);
      const pages = Array.from({ length: count }, (_, i) =>
        pageOf(reader, reader.pageEntry(first + i), corpus),
      );
      const bodies = pages.flatMap((page) => (page.body ? [page.body] : []));
      writer.append(
        0,
        BigUint64Array.from(pages, (page) => page.desc),
        Buffer.concat(bodies),
      );
    }
    await writer.commit({ ...reader.manifest, pages: writer.counts() });
  } catch (thrown) {
    await writer.abandon();
    throw thrown;
  } finally {
    reader.close();
  }
}

/** The content root of pages, by the specification and nothing else. */
import { hash128 } from '../../src/pfn/page_scan.js';
import type { TestPage } from './images.js';
import { pageBytes } from '../../src/pfn/page_words.js';

const little = (hex: string): bigint => BigInt(`0x${hex}`);

export function contentRootOf(pages: Iterable<TestPage>): string {
  let sum = 0n;
  for (const { pfn, pageClass, type, body } of pages) {
    if (type === 15) continue;
    const content = pageClass === 'zero' ? Buffer.alloc(pageBytes) : body;
    const record = Buffer.alloc(32);
    record.writeBigUInt64LE(BigInt(pfn) + (BigInt(type) << 60n));
    if (content) Buffer.from(hash128(content), 'hex').reverse().copy(record, 16);
    for (const half of [0n, 1n]) {
      record.writeBigUInt64LE(half, 8);
      sum += little(hash128(record)) << (128n * half);
    }
  }
  const hex = (sum % 2n ** 256n).toString(16).padStart(64, '0');
  return Buffer.from(hex, 'hex').reverse().toString('hex');
}

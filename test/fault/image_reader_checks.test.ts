/** What the native reader must see for itself, whoever verified an image before. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FOOTER, wholePages } from '../../src/image/format.js';
import { decodeFooter, rootOf, storedHash } from '../../src/image/frame.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { type CommittedImage, ImageWriter, type ParentImage } from '../../src/image/writer.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { append, manifestFor, pvhDomain, tempDir, type TestPage } from '../support/images.js';

const data = (pfn: number): TestPage => ({
  ...{ pfn, pageClass: 'data', type: 0 },
  body: Buffer.alloc(pageBytes, pfn + 1),
});

async function write(
  path: string,
  nrPfns: number,
  pages: readonly TestPage[],
  options: { parent?: ParentImage; chunkDigests?: boolean } = {},
): Promise<CommittedImage> {
  const writer = await ImageWriter.create(path, {
    ...{ nrPfns, lanes: 1, consistency: 'suspend-point' },
    ...options,
  });
  append(writer, 0, [...pages]);
  return writer.commit(manifestFor(nrPfns, writer.counts(), { domain: pvhDomain }));
}

/** The first digest is another one, and every checksum above it is right. */
function withOtherDigest(image: Buffer): Buffer {
  const footer = image.subarray(-pageBytes);
  const { offset, size } = decodeFooter(footer).regions.chunkDigests;
  image.writeUInt8(image.readUInt8(offset) ^ 1, offset);
  const span = image.subarray(offset, offset + wholePages(size));
  createHash('sha256').update(span).digest().copy(footer, FOOTER.chunkDigestsHash[0]);
  footer.write(rootOf(image.subarray(0, pageBytes), footer), FOOTER.root[0], 'hex');
  footer.write(storedHash(footer.subarray(0, FOOTER.checksum[0])), FOOTER.checksum[0], 'hex');
  return image;
}

test('a chunk that is not what its digest says is damaged, though its checksum holds', async (t) => {
  const path = join(tempDir(t), 'image');
  await write(
    path,
    8,
    Array.from({ length: 8 }, (_, pfn) => data(pfn)),
    { chunkDigests: true },
  );
  writeFileSync(path, withOtherDigest(readFileSync(path)));
  const reader = await ImageReader.open(path, { lanes: 1 });
  t.after(() => reader.close());
  assert.throws(() => reader.readChunk(0, 0), { code: 'IMAGE_DAMAGED', message: /digest/ });
  assert.notDeepEqual((await verifyImage(path)).findings, []);
});

test('pages left to a parent that is too small for them are in no image, whatever lies below it', async (t) => {
  const dir = tempDir(t);
  const at = (name: string): string => join(dir, name);
  const full = await write(
    at('full'),
    100,
    Array.from({ length: 100 }, (_, pfn) => data(pfn)),
  );
  const small = await write(at('small'), 50, [data(3)], { parent: full });
  await assert.rejects(write(at('honest'), 100, [data(4)], { parent: small }), {
    code: 'ACCOUNTING_MISMATCH',
  });
  await write(at('top'), 100, [data(4)], { parent: { ...small, nrPfns: 100 } });
  await assert.rejects(ImageReader.open(at('top'), { lanes: 1 }), { code: 'IMAGE_DAMAGED' });
  assert.notDeepEqual((await verifyImage(at('top'))).findings, []);
});

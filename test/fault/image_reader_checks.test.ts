/** What the native reader must see for itself, whoever verified an image before. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
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
import { putTogether, takeApart } from '../support/forge.js';
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

/** The second block of its first chunk decodes for a while and then no more; every checksum is right. */
function withBrokenBlock(image: Buffer): Buffer {
  const parts = takeApart(image);
  const chunk = parts.chunks[0] ?? Buffer.alloc(0);
  const payload = 64;
  const table = payload + chunk.readUInt32LE(20);
  const [first, second] = [chunk.readUInt32LE(table), chunk.readUInt32LE(table + 4)];
  assert.ok((first | second) < 0x8000_0000, 'both are compressed');
  chunk.fill(0xff, payload + first + Math.floor(second / 2), payload + first + second);
  return putTogether(parts);
}

test('a block that does not decode leaves nothing behind that is taken for another block', async (t) => {
  const path = join(tempDir(t), 'image');
  const pages = Array.from({ length: 32 }, (_, pfn) => ({
    ...data(pfn),
    body: Buffer.from(Uint8Array.from({ length: pageBytes }, (_, at) => pfn * 7 + (at >> 6) * 3)),
  }));
  await write(path, 32, pages);
  writeFileSync(path, withBrokenBlock(readFileSync(path)));
  const reader = await ImageReader.open(path, { lanes: 1 });
  t.after(() => reader.close());
  for (const time of ['before', 'after']) {
    assert.ok(reader.readPages([3]).equals(pages[3]?.body ?? Buffer.alloc(0)), time);
    assert.throws(() => reader.readPages([16]), { code: 'IMAGE_DAMAGED' }, time);
  }
});

/** Preloaded: one buffer of 1 MiB, a reader's for bodies, cannot be had. */
const noBodies = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
void *aligned_alloc(size_t unit, size_t bytes) {
  static int failed;
  if (bytes == 1 << 20 && !failed++) return NULL;
  return ((void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc"))(unit, bytes);
}
`;

test('a lane of which memory for one half was had is whole before it is used', async (t) => {
  const dir = tempDir(t);
  const [path, shim] = [join(dir, 'image'), join(dir, 'shim.so')];
  await write(path, 8, [data(3)].concat([0, 1, 2, 4, 5, 6, 7].map(data)));
  execFileSync('cc', ['-shared', '-fPIC', '-x', 'c', '-', '-o', shim, '-ldl'], { input: noBodies });
  const script = `
    const { ImageReader } = await import(${JSON.stringify(new URL('../../src/image/reader.js', import.meta.url).href)});
    const reader = await ImageReader.open(${JSON.stringify(path)}, { lanes: 1 });
    for (let i = 0; i < 2; i++)
      try { console.log(reader.readChunk(0, 0).bodies[0]); } catch (thrown) { console.log(thrown.code); }`;
  const env = { ...process.env, LD_PRELOAD: shim };
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    ...{ encoding: 'utf8', env },
  });
  assert.equal(said, 'NO_MEMORY\n4\n');
});

/** A map in the middle of a chain that leads nowhere for a page that a newer image has itself: reader and verifier agree. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lz4Decompress } from '../../src/codec/lz4.js';
import { ANCESTOR, HEADER, MAP_RUN, MAP_RUN_SIZE, STORED_FLAG } from '../../src/image/format.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { decodeFooter } from '../../src/image/frame.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { openHashed } from '../support/chains.js';
import { put, putTogether, takeApart } from '../support/forge.js';
import { append, manifestFor, pvhDomain, tempDir, writeImage, type TestPage } from '../support/images.js';
import { ImageWriter, parentOf } from '../../src/image/writer.js';

const nrPfns = 16;
const data = (pfn: number, byte: number): TestPage => ({
  ...{ pfn, pageClass: 'data', type: 0 },
  body: Buffer.alloc(pageBytes, byte),
});
const zero = (pfn: number): TestPage => ({ pfn, pageClass: 'zero', type: 0, body: null });

async function increment(path: string, parent: string, fullMap: boolean, page: TestPage): Promise<void> {
  const reader = await openHashed(parent);
  try {
    const writer = await ImageWriter.create(path, {
      ...{ nrPfns, lanes: 1, consistency: 'suspend-point', fullMap },
      parent: parentOf(reader),
    });
    append(writer, 0, [page]);
    await writer.commit(manifestFor(nrPfns, writer.counts(), { domain: pvhDomain }));
  } finally {
    reader.close();
  }
}

/** Moves what the full map says of a page in an ancestor to a slot that is none. */
function misled(image: Buffer, pfn: number): Buffer {
  const parts = takeApart(image);
  const map = parts.regions.pageMap;
  const [size, raw] = [map.readUInt32LE(0), map.readUInt32LE(4)];
  const runs = size >= STORED_FLAG ? map.subarray(8) : lz4Decompress(map.subarray(8, 8 + size), raw);
  const block = Buffer.concat([Buffer.alloc(8), runs]);
  block.writeUInt32LE(raw + STORED_FLAG, 0);
  block.writeUInt32LE(raw, 4);
  for (let at = 8, first = 0; at < block.length; at += MAP_RUN_SIZE) {
    if (first === pfn) put(block, MAP_RUN.slot, 99, at);
    first += block.readUInt32LE(at);
  }
  parts.regions.pageMap = block;
  return putTogether(parts);
}

function restingOn(image: Buffer, parentRoot: string): Buffer {
  const parts = takeApart(image);
  parts.header.write(parentRoot, HEADER.parentRoot[0], 'hex');
  parts.regions.ancestors.write(parentRoot, ANCESTOR.root[0], 'hex');
  return putTogether(parts);
}

test('a run that is hidden by a newer map must lead to a page all the same', async (t) => {
  const dir = tempDir(t);
  const [base, middle, top] = ['base', 'middle', 'top'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  const pages = Array.from({ length: nrPfns }, (_, pfn) => (pfn % 9 === 0 ? data(pfn, 1 + pfn) : zero(pfn)));
  await writeImage(base, nrPfns, [pages], { lanes: 1 }, { domain: pvhDomain });
  await increment(middle, base, true, data(3, 70));
  await increment(top, middle, false, data(9, 80));
  assert.deepEqual((await verifyImage(top)).findings, []);
  const forged = misled(readFileSync(middle), 9);
  writeFileSync(middle, forged);
  const { root } = decodeFooter(forged.subarray(-pageBytes));
  writeFileSync(top, restingOn(readFileSync(top), root));
  await assert.rejects(ImageReader.open(top, { lanes: 1 }), { code: 'IMAGE_DAMAGED' });
  const { findings } = await verifyImage(top);
  assert.match(findings[0]?.what ?? '', /seeks pfn 9 in a chunk that has it not/);
  assert.equal(findings[0]?.path, middle);
});

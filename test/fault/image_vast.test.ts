/** A small file that says it is of 2^32 pages: what it costs to verify it follows from the file. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FOOTER, HEADER, MAP_RUN_SIZE, MAX_PFNS, STORED_FLAG } from '../../src/image/format.js';
import { decodeManifest, encodeManifest } from '../../src/image/manifest.js';
import { verifyImage } from '../../src/image/verify.js';
import { put, putTogether, takeApart } from '../support/forge.js';
import { pvhDomain, tempDir, writeImage, type TestPage } from '../support/images.js';

/** A page of data, then zeroes to the end. */
const pages: TestPage[] = [
  { pfn: 0, pageClass: 'data', type: 0, body: Buffer.alloc(4096, 1) },
  { pfn: 1, pageClass: 'zero', type: 0, body: null },
];

/** The map of such an image in a block that is not compressed. */
function mapOf(nrPfns: number): Buffer {
  const map = Buffer.alloc(8 + 2 * MAP_RUN_SIZE);
  map.writeUInt32LE(STORED_FLAG + 2 * MAP_RUN_SIZE, 0);
  map.writeUInt32LE(2 * MAP_RUN_SIZE, 4);
  map.writeUInt32LE(1, 8);
  map.writeUInt8(1, 8 + 12);
  map.writeUInt32LE(nrPfns - 1, 8 + MAP_RUN_SIZE);
  map.writeUInt8(2, 8 + MAP_RUN_SIZE + 12);
  return map;
}

function grown(image: Buffer, nrPfns: number): Buffer {
  const parts = takeApart(image);
  const { header, footer, regions } = parts;
  const manifest = decodeManifest(regions.manifest);
  const counts = { ...manifest.pages, zero: nrPfns - 1 };
  regions.manifest = encodeManifest({
    ...manifest,
    pages: counts,
    geometry: { ...manifest.geometry, nrPfns },
  });
  regions.pageMap = mapOf(nrPfns);
  put(header, HEADER.nrPfns, nrPfns);
  put(footer, FOOTER.nrPfns, nrPfns);
  put(footer, FOOTER.pageMapRuns, 2);
  put(footer, [FOOTER.classCounts[0] + 16, 8], nrPfns - 1);
  return putTogether(parts);
}

test('an image of 2^32 pages that are stored nowhere is verified in no time, and says what was left out', async (t) => {
  const path = join(tempDir(t), 'image');
  await writeImage(path, 2, [pages], { lanes: 1, pageHashes: true }, { domain: pvhDomain });
  const image = readFileSync(path);
  assert.equal((await verifyImage(path)).contentRootCompared, true);
  writeFileSync(path, grown(image, MAX_PFNS));
  const report = await verifyImage(path, { signal: AbortSignal.timeout(20_000) });
  assert.deepEqual(report.findings, []);
  assert.equal(report.nrPfns, MAX_PFNS);
  assert.equal(report.contentRootCompared, false);
  // One that is in proportion is compared, and a root of other pages is damage.
  writeFileSync(path, grown(image, 1 << 14));
  assert.match((await verifyImage(path)).findings[0]?.what ?? '', /content root/);
});

test('the content root of many pages can be cancelled', async (t) => {
  const path = join(tempDir(t), 'image');
  await writeImage(path, 2, [pages], { lanes: 1, pageHashes: true }, { domain: pvhDomain });
  writeFileSync(path, grown(readFileSync(path), 1 << 22));
  const cancel = new AbortController();
  const verified = verifyImage(path, { signal: cancel.signal });
  setTimeout(() => cancel.abort(), 200);
  await assert.rejects(verified, { code: 'CANCELLED' });
});

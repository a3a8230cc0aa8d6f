/** A small file that says it is of 2^32 pages: what it costs to verify it follows from the file. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { convertToXen } from '../../src/convert/to_xen.js';
import { digestImage } from '../../src/digest/digest.js';
import { MAX_PFNS } from '../../src/image/format.js';
import { verifyImage } from '../../src/image/verify.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { pvhDomain, tempDir, writeImage } from '../support/images.js';
import { grown, twoPages } from '../support/vast_image.js';

test('an image of 2^32 pages that are stored nowhere is verified in no time, and says what was left out', async (t) => {
  const path = join(tempDir(t), 'image');
  await writeImage(path, 2, [twoPages], { lanes: 1, pageHashes: true }, { domain: pvhDomain });
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
  await writeImage(path, 2, [twoPages], { lanes: 1, pageHashes: true }, { domain: pvhDomain });
  writeFileSync(path, grown(readFileSync(path), 1 << 22));
  const cancel = new AbortController();
  const verified = verifyImage(path, { signal: cancel.signal });
  setTimeout(() => cancel.abort(), 200);
  await assert.rejects(verified, { code: 'CANCELLED' });
});

test('the digest of an image of 2^32 pages takes time and memory by its runs', async (t) => {
  t.after(closeWorkers);
  const path = join(tempDir(t), 'image');
  await writeImage(path, 2, [twoPages], { lanes: 1 }, { domain: pvhDomain });
  const image = readFileSync(path);
  const digests = new Set([(await digestImage(path)).digest]);
  const before = process.memoryUsage.rss();
  for (const [nrPfns, blank] of [
    [2 ** 26, 'noFrame'],
    [MAX_PFNS, 'zero'],
    [MAX_PFNS, 'noFrame'],
  ] as const) {
    writeFileSync(path, grown(image, nrPfns, blank));
    const options = { signal: AbortSignal.timeout(20_000) };
    digests.add((await digestImage(path, options)).digest);
    const grew = process.memoryUsage.rss() - before;
    assert.ok(grew < 256 << 20, `${grew} bytes more`);
  }
  assert.equal(digests.size, 4);
});

test('an unsigned image of far more pfns than pages is not converted to a file that lists them all', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'image');
  await writeImage(path, 2, [twoPages], { lanes: 1 }, { domain: pvhDomain });
  writeFileSync(path, grown(readFileSync(path), 2 ** 23, 'noFrame'));
  const options = { signal: AbortSignal.timeout(5000) };
  const refused = { code: 'IMAGE_NOT_RESTORABLE', message: /8388608 pfns for 1 pages/ };
  await assert.rejects(convertToXen(path, join(dir, 'guest.xl'), options), refused);
});

/** Files with holes: as long as they say they are, and almost nothing of them is on the disk. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FOOTER, REGIONS, type Region } from '../../src/image/format.js';
import { rootOf, storedHash } from '../../src/image/frame.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { sha256 } from '../../src/image/sha256.js';
import { verifyImage } from '../../src/image/verify.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { writeIncrement } from '../support/chains.js';
import { put } from '../support/forge.js';
import { pvhDomain, tempDir, writeImage, type TestPage } from '../support/images.js';
import { twoPages } from '../support/vast_image.js';

const holeBytes = 512 << 20;

/** The hash of a region and as many zeroes behind it. */
function hashWithHole(bytes: Buffer): Buffer {
  const hash = createHash('sha256').update(bytes);
  const zeroes = Buffer.alloc(1 << 24);
  for (let left = holeBytes; left > 0; left -= zeroes.length) hash.update(zeroes);
  return hash.digest();
}

/** The image with a hole behind one region that counts as part of it; every checksum is right. */
function withHole(image: Buffer, path: string, grown: Region): void {
  const footer = Buffer.from(image.subarray(-pageBytes));
  const at = (name: Region) => Number(footer.readBigUInt64LE(FOOTER[`${name}Offset`][0]));
  const ends = [...REGIONS.slice(1).map(at), image.length - pageBytes];
  const index = REGIONS.indexOf(grown);
  const end = ends[index] ?? 0;
  const region = image.subarray(at(grown), end);
  hashWithHole(region).copy(footer, FOOTER[`${grown}Hash`][0]);
  put(footer, FOOTER[`${grown}Size`], region.length + holeBytes);
  for (const name of REGIONS.slice(index + 1)) put(footer, FOOTER[`${name}Offset`], at(name) + holeBytes);
  put(footer, FOOTER.fileSize, image.length + holeBytes);
  footer.write(rootOf(image.subarray(0, pageBytes), footer), FOOTER.root[0], 'hex');
  footer.write(storedHash(footer.subarray(0, FOOTER.checksum[0])), FOOTER.checksum[0], 'hex');
  const fd = openSync(path, 'w');
  writeSync(fd, image, 0, end, 0);
  ftruncateSync(fd, image.length + holeBytes);
  writeSync(fd, image, end, image.length - pageBytes - end, end + holeBytes);
  writeSync(fd, footer, 0, pageBytes, image.length - pageBytes + holeBytes);
  closeSync(fd);
}

test('a region that is larger than it can be is not read', async (t) => {
  const dir = tempDir(t);
  const [parent, child] = [join(dir, 'parent'), join(dir, 'child')];
  await writeImage(parent, 2, [twoPages], { lanes: 1 }, { domain: pvhDomain });
  const changed: TestPage = { pfn: 1, pageClass: 'data', type: 0, body: Buffer.alloc(4096, 2) };
  await writeIncrement(child, parent, 2, [changed]);
  const image = readFileSync(child);
  for (const region of ['ancestors', 'pageMap'] as const) {
    const path = join(dir, region);
    withHole(image, path, region);
    const before = process.memoryUsage.rss();
    await assert.rejects(ImageReader.open(path, { lanes: 1 }), {
      code: 'IMAGE_DAMAGED',
      message: /cannot be/,
    });
    const { findings } = await verifyImage(path);
    assert.ok(
      findings.some(({ what }) => what === `its ${region} is larger than it can be`),
      JSON.stringify(findings),
    );
    if (region === 'ancestors')
      assert.ok((await inspectImage(path)).damage.includes('more ancestors than there can be'));
    const grew = process.memoryUsage.rss() - before;
    assert.ok(grew < holeBytes / 2, `${region}: ${grew} bytes more`);
  }
});

test('a long file of holes that is no image is looked at for a bounded time, and that is said', async (t) => {
  const path = join(tempDir(t), 'holes');
  writeFileSync(path, '');
  truncateSync(path, 2 ** 43);
  const { chunks, damage } = await inspectImage(path);
  assert.equal(chunks.count, 0);
  assert.match(damage.at(-1) ?? '', /^from offset \d+ on it was not looked for chunks/);
});

test('a hash over slices is that of the whole', () => {
  const bytes = randomBytes(1000);
  const whole = createHash('sha256').update(bytes).digest('hex');
  for (const slice of [1, 7, 250, 999, 1000, 1001, undefined]) assert.equal(sha256(bytes, slice), whole);
  assert.equal(sha256(Buffer.alloc(0)), createHash('sha256').digest('hex'));
});

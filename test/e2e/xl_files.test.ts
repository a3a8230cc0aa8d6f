/** Files that a real `xl save` wrote: to image and back is the same file. Skipped where there are none. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { findP2mRoot } from '../../src/domain/p2m_root.js';
import { sharedInfo as sharedInfoOffsets } from '../../src/domain/vcpu_context.js';
import { compareXenFiles } from '../../src/convert/compare.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import { ImageReader } from '../../src/image/reader.js';
import { noVerifier, noXlFiles, unpack, verifierComplaint, xlFiles } from '../support/xen_tools.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-xl-files-'));
after(() => rmSync(folder, { recursive: true, force: true }));

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return hash.digest('hex');
}

test('files of a real xl save', { skip: noXlFiles }, async (t) => {
  for (const source of xlFiles()) {
    const name = basename(source);
    const [xl, image, back] = ['xl', 'image', 'back'].map((end) => join(folder, `${name}.${end}`)) as [
      string,
      string,
      string,
    ];
    await t.test(`${name} there and back, byte for byte`, async () => {
      await unpack(source, xl);
      const { counts, storedBytes } = await convertFromXen(source, image);
      await convertToXen(image, back);
      assert.equal(statSync(back).size, statSync(xl).size);
      assert.equal(await digest(back), await digest(xl));
      assert.ok(counts.data > 1000 && counts.zero > 100);
      assert.ok(storedBytes < statSync(xl).size / 2, `${storedBytes} bytes`);
    });
    await t.test(`${name}: the comparison finds nothing`, async () => {
      assert.deepEqual(await compareXenFiles(source, back), []);
    });
    await t.test(`${name} again accepted by verify-stream-v2`, { skip: noVerifier }, () => {
      assert.equal(verifierComplaint(back), null);
    });
    if (await is64BitPv(image)) await t.test(`${name}: the root of the p2m`, () => checkP2mRoot(image));
    for (const path of [xl, image, back]) rmSync(path, { force: true });
  }
});

async function is64BitPv(image: string): Promise<boolean> {
  const reader = await ImageReader.open(image, { lanes: 1 });
  reader.close();
  return reader.manifest.domain.type === 'pv' && reader.manifest.geometry.guestWidth === 8;
}

/** The guest's own p2m leaves still hold the frames it had, so the root found can be held against p2m_cr3. */
async function checkP2mRoot(image: string): Promise<void> {
  const reader = await ImageReader.open(image, { lanes: 1 });
  try {
    const { geometry, state } = reader.manifest;
    const l4Pfns = reader
      .tables()
      .filter(({ level }) => level === 4)
      .map(({ pfn }) => pfn);
    const { p2mFrames, nrPfns } = geometry;
    const { sharedInfo } = state;
    const root = findP2mRoot({
      sharedInfo,
      nrPfns,
      p2mFrames,
      l4Pfns,
      readPage: (pfn) => reader.readPages([pfn]),
    });
    assert.ok(root !== null, 'no root found');
    const leaf = reader.readPages([p2mFrames[Math.floor(root / 512)] ?? 0]);
    assert.equal(
      leaf.readBigUInt64LE((root % 512) * 8),
      sharedInfo.readBigUInt64LE(sharedInfoOffsets.p2mCr3) >> 12n,
    );
  } finally {
    reader.close();
  }
}

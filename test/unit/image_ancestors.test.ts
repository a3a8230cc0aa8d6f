/** What an increment says of its ancestors. A name that is no UTF-8 would be another name once an increment of this one writes it again. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeAncestors, encodeAncestors } from '../../src/image/ancestors.js';
import { ANCESTOR, FOOTER, HEADER } from '../../src/image/format.js';
import { parseAncestors } from '../../src/image/parse.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { writeIncrement } from '../support/chains.js';
import { putTogether, takeApart } from '../support/forge.js';
import { page, pvhDomain, random, tempDir, writeImage, type TestPage } from '../support/images.js';

const entry = (name: string): Buffer =>
  encodeAncestors([{ imageId: 'ab'.repeat(16), root: 'cd'.repeat(32), sequence: 1, name }]);

test('a name of 256 bytes of UTF-8 is taken by reader and verifier', () => {
  const name = 'é'.repeat(128);
  assert.equal(decodeAncestors(entry(name), false)[0]?.name, name);
  assert.notEqual(typeof parseAncestors(entry(name), false), 'string');
});

test('a name that is no UTF-8 is damage to both', () => {
  for (const newer of [false, true]) {
    const bytes = entry('web1.dmi');
    bytes.writeUInt8(0xc3, ANCESTOR.name[0] + 2);
    assert.throws(() => decodeAncestors(bytes, newer), { code: 'IMAGE_DAMAGED' });
    assert.equal(parseAncestors(bytes, newer), "entry 0 has no file's name");
  }
});

const pagesOf = (seed: number): TestPage[] => {
  const next = random(seed);
  return Array.from({ length: 24 }, (_, pfn) => page(pfn, next));
};

for (const [what, forge] of [
  [
    'with another number',
    (header: Buffer, entries: Buffer) => {
      header.writeBigUInt64LE(7n, HEADER.sequence[0]);
      entries.writeBigUInt64LE(6n, ANCESTOR.sequence[0]);
    },
  ],
  ['of another chain', (header: Buffer) => header.fill(0x11, HEADER.chainId[0], HEADER.chainId[0] + 16)],
] as const)
  test(`an ancestor ${what} is refused by reader and verifier`, async (t) => {
    const dir = tempDir(t);
    const [parent, child] = [join(dir, 'parent'), join(dir, 'child')];
    await writeImage(parent, 24, [pagesOf(1)], { pageHashes: true }, { domain: pvhDomain });
    await writeIncrement(child, parent, 24, pagesOf(2));
    const parts = takeApart(readFileSync(child));
    forge(parts.header, parts.regions.ancestors);
    writeFileSync(child, putTogether(parts));
    await assert.rejects(ImageReader.open(child, { lanes: 1 }), { code: 'IMAGE_INCOMPATIBLE' });
    const { findings } = await verifyImage(child);
    assert.match(findings.map((finding) => finding.what).join(), /it is not image/);
  });

test("an ancestor's signature is not asked for: its root is vouched for; by itself and by verify it is", async (t) => {
  const dir = tempDir(t);
  const [parent, child] = [join(dir, 'parent'), join(dir, 'child')];
  await writeImage(parent, 24, [pagesOf(1)], { pageHashes: true }, { domain: pvhDomain });
  await writeIncrement(child, parent, 24, pagesOf(2));
  const signAnother = (footer: Buffer): void =>
    void footer.fill(1, FOOTER.signerKey[0], FOOTER.signerKey[0] + 96);
  writeFileSync(parent, putTogether(takeApart(readFileSync(parent)), signAnother));
  (await ImageReader.open(child, { lanes: 1 })).close();
  await assert.rejects(ImageReader.open(parent, { lanes: 1 }), {
    code: 'IMAGE_DAMAGED',
    message: /signature/,
  });
  assert.match((await verifyImage(parent)).findings[0]?.what ?? '', /signature/);
});

/** Names of ancestors: one that is no UTF-8 would be another name once an increment of this one writes it again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeAncestors, encodeAncestors } from '../../src/image/ancestors.js';
import { ANCESTOR } from '../../src/image/format.js';
import { parseAncestors } from '../../src/image/parse.js';

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

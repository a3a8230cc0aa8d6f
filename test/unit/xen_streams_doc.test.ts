import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { type Field, MAX_CHUNK_SPAN, MAX_MANIFEST_BYTES } from '../../src/image/format.js';
import * as layout from '../../src/xenstream/frames/layout.js';
import { fieldTable } from '../support/field_table.js';

const text = readFileSync(join(packageRoot, 'docs/xen-streams.md'), 'utf8');

const structures = {
  'Stream head': [layout.STREAM_HEAD, layout.STREAM_HEAD_SIZE],
  'Frame head': [layout.FRAME_HEAD, layout.FRAME_HEAD_SIZE],
} as const;

for (const [heading, [fields, total]] of Object.entries(structures)) {
  test(`${heading}: the specification's table is the code's`, () => {
    assert.deepEqual(fieldTable(text, heading), fields);
  });
  test(`${heading}: its fields follow each other without gap or overlap`, () => {
    let at = 0;
    for (const [name, [offset, size]] of Object.entries(fields as Record<string, Field>)) {
      assert.equal(offset, at, name);
      at += size;
    }
    assert.equal(at, total);
  });
}

test('magics, kinds, versions and limits are as specified', () => {
  const magics = [...text.matchAll(/\| magic \| `((?:[0-9A-F]{2} ?)+)`/g)].map(([, hex]) =>
    hex?.replaceAll(' ', '').toLowerCase(),
  );
  assert.deepEqual(magics, [layout.STREAM_MAGIC, layout.FRAME_MAGIC]);
  const kinds = Object.entries(layout.FRAME_KINDS).map(([name, number]) => `${number} ${name}`);
  assert.ok(text.includes(`| kind | ${kinds.join(', ')} |`));
  assert.match(text, new RegExp(`\\| major \\| ${layout.STREAM_MAJOR};`));
  assert.match(text, new RegExp(`\\| minor \\| ${layout.STREAM_MINOR};`));
  assert.match(text, new RegExp(`\\| headSize \\| ${layout.STREAM_HEAD_SIZE} \\|`));
  assert.match(text, new RegExp(`\\| headSize \\| ${layout.FRAME_HEAD_SIZE} \\|`));
  const limits = `at most ${MAX_MANIFEST_BYTES >> 20} MiB; of pages at most ${MAX_CHUNK_SPAN.toLocaleString('en')}`;
  assert.ok(text.includes(limits));
});

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import * as format from '../../src/image/format.js';
import { fieldTable } from '../support/field_table.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { classNames } from '../../src/pfn/counts.js';

const text = readFileSync(join(packageRoot, 'docs/image-format.md'), 'utf8');

const structures = {
  Header: [format.HEADER, pageBytes],
  'Chunk header': [format.CHUNK_HEADER, format.CHUNK_HEADER_SIZE],
  'Chunk run': [format.CHUNK_RUN, format.CHUNK_RUN_SIZE],
  'Delta base': [format.DELTA_BASE, format.DELTA_BASE_SIZE],
  'Chunk entry': [format.CHUNK_ENTRY, format.CHUNK_ENTRY_SIZE],
  'Map block': [format.MAP_BLOCK, format.MAP_BLOCK_SIZE],
  Ancestor: [format.ANCESTOR, format.ANCESTOR_SIZE],
  'Map run': [format.MAP_RUN, format.MAP_RUN_SIZE],
  Footer: [format.FOOTER, pageBytes],
} as const;

for (const [heading, [layout, total]] of Object.entries(structures)) {
  test(`${heading}: the specification's table is the code's`, () => {
    assert.deepEqual(fieldTable(text, heading), layout);
  });
  test(`${heading}: its fields follow each other without gap or overlap`, () => {
    let at = 0;
    for (const [name, [offset, size]] of Object.entries(layout as Record<string, format.Field>)) {
      assert.equal(offset, at, name);
      at += size;
    }
    assert.equal(at, total);
  });
}

test('classes and magics are as specified', () => {
  const rows = [...text.matchAll(/^\| (\w+) \| (\d) \| (yes|no) \|/gm)];
  assert.deepEqual(
    rows.map(([, name, number]) => [name, Number(number)]),
    classNames.map((name, number) => [name, number]).slice(1),
  );
  const magics = [...text.matchAll(/`((?:[0-9A-F]{2} ){7}[0-9A-F]{2})`/g)].map(([, hex]) =>
    hex?.replaceAll(' ', '').toLowerCase(),
  );
  assert.deepEqual(magics, [format.HEADER_MAGIC, format.FOOTER_MAGIC]);
  assert.equal(Buffer.from(format.CHUNK_MAGIC, 'hex').toString(), 'DMCK');
});

test('a chunk of full size is as long as the specification says', () => {
  const longest =
    format.CHUNK_HEADER_SIZE +
    format.MAX_CHUNK_BODIES * pageBytes +
    (format.MAX_CHUNK_BODIES / format.BLOCK_PAGES) * 4 +
    format.MAX_CHUNK_PAGES * format.CHUNK_RUN_SIZE;
  assert.equal(format.wholePages(longest), format.MAX_CHUNK_SPAN);
  assert.ok(text.includes(format.MAX_CHUNK_SPAN.toLocaleString('en')));
});

/** An image that is written while memory runs out at any moment (test/support/image_without_memory.cc). */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { tempDir } from '../support/images.js';
import { runNativeProgram } from '../support/native_program.js';

const files = [
  'image_writer',
  'image_reader',
  'image_reader_delta',
  'delta_chunk',
  'base_pages',
  'lane',
  'aligned_bytes',
  'encode',
  'block_coder',
  'chunk',
  'output_file',
];
const maps = ['writer_map', 'page_map', 'content_root'];

test('memory that runs out at any allocation is NO_MEMORY, then and from then on, and no image', (t) => {
  const dir = tempDir(t);
  const sources = ['codec/delta.cc', ...[...files, ...maps].map((file) => `image/${file}.cc`)];
  const ran = runNativeProgram(t, 'image_without_memory.cc', sources, [dir]);
  assert.equal(ran.status, 0, ran.output);
  assert.deepEqual(readdirSync(dir), []);
});

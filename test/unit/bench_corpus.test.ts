import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { measureDirectWrite, measureLz4, withoutZeroPages } from '../../bench/limits.js';
import { mixedMemory } from '../../bench/mixed_memory.js';
import { DormouseError } from '../../src/errors.js';
import { pageBytes } from '../../src/pfn/page_words.js';

const bytes = 16 * 2 ** 20;

test('mixed memory is of the size asked for, a quarter zero, and hardly repeats itself', () => {
  const { memory, shares, description } = mixedMemory(bytes);
  assert.equal(memory.length, bytes, description);
  const nonZero = withoutZeroPages(memory);
  const zeroShare = 1 - nonZero.length / memory.length;
  // Files bring a few zero pages of their own.
  assert.ok(zeroShare >= 0.245 && zeroShare < 0.4, `${zeroShare} zero: ${description}`);
  const distinct = new Set<string>();
  for (let at = 0; at < nonZero.length; at += pageBytes)
    distinct.add(
      createHash('sha1')
        .update(nonZero.subarray(at, at + pageBytes))
        .digest('base64'),
    );
  assert.ok((distinct.size * pageBytes) / nonZero.length > 0.95, `${distinct.size} distinct pages`);
  assert.ok(Math.abs(shares.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-9);
  assert.ok(mixedMemory(bytes).memory.equals(memory), 'the same seed gives the same memory');
  assert.ok(!mixedMemory(bytes, 2).memory.equals(memory), 'another seed another');
});

test('pages of a guest are used where they are named, and a lack of them is told', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-corpus-'));
  t.after(() => {
    delete process.env.DORMOUSE_GUEST_PAGES;
    rmSync(dir, { recursive: true });
  });
  const guest = Buffer.alloc(40 * pageBytes);
  for (let page = 0; page < 40; page += 2) guest.fill(page + 1, page * pageBytes, (page + 1) * pageBytes);
  process.env.DORMOUSE_GUEST_PAGES = join(dir, 'guest.raw');
  writeFileSync(process.env.DORMOUSE_GUEST_PAGES, guest);
  const { memory, shares, description } = mixedMemory(bytes);
  const share = shares.find(({ kind }) => kind === 'guest');
  assert.equal(share?.pages, 20);
  assert.match(description, /not enough material for guest: 20 of \d+ pages/);
  assert.ok(memory.length < bytes && memory.includes(guest.subarray(0, pageBytes)));
});

test('LZ4 is measured on what it is given, with one thread and with two', () => {
  const { memory } = mixedMemory(bytes);
  for (const threads of [1, 2]) {
    const found = measureLz4(memory, threads);
    assert.ok(found.compressGbps > 0.01 && found.decompressGbps > found.compressGbps, JSON.stringify(found));
    assert.ok(found.storedShare > 0.1 && found.storedShare < 0.9, JSON.stringify(found));
  }
});

test('the disk is measured without leaving a file, and a missing folder is a typed error', (t) => {
  const dir = mkdtempSync(join(process.cwd(), 'build', 'direct-'));
  t.after(() => rmSync(dir, { recursive: true }));
  try {
    assert.ok(measureDirectWrite(dir, 8 * 2 ** 20, 2) > 0);
  } catch (error) {
    assert.ok(error instanceof DormouseError && error.code === 'OUTPUT_INVALID', String(error));
  }
  assert.deepEqual(readdirSync(dir), []);
  assert.throws(
    () => measureDirectWrite(join(dir, 'missing'), 2 ** 22, 1),
    (error) => error instanceof DormouseError && error.code === 'IMAGE_WRITE_FAILED',
  );
});

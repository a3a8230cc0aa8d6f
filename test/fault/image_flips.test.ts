import assert from 'node:assert/strict';
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { asDormouseError } from '../../src/errors.js';
import { ImageReader } from '../../src/image/reader.js';
import { nativeImage } from '../../src/image/native.js';
import { verifyImage } from '../../src/image/verify.js';
import { body, page, random, tempDir, writeImage, type TestPage } from '../support/images.js';

/** What a restore does before it creates a domain. */
async function checkWhole(path: string): Promise<void> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    for (let chunk = 0; chunk < reader.nrChunks; chunk++) reader.checkChunk(0, chunk);
  } finally {
    reader.close();
  }
}

async function codeOf(path: string): Promise<string> {
  try {
    await checkWhole(path);
    return 'whole';
  } catch (thrown) {
    return asDormouseError(thrown).code;
  }
}

/** A chunk with every class, blocks stored and compressed, padding everywhere: all kinds of regions in few bytes. */
async function smallImage(path: string): Promise<Buffer> {
  const next = random(7);
  const pages: TestPage[] = Array.from({ length: 40 }, (_, pfn) => page(pfn, next));
  const small = pages.map((p, i) => (p.body && i > 2 ? { ...p, body: Buffer.alloc(4096, i) } : p));
  small[0] = { pfn: 0, pageClass: 'data', type: 0, body: body(() => 0) };
  await writeImage(path, 40, [small, small.slice(5, 7)], { lanes: 1 });
  return readFileSync(path);
}

test('every flip of one byte is detected by opening and checking, and by verify', async (t) => {
  const path = join(tempDir(t), 'small.dormouse');
  const whole = await smallImage(path);
  t.diagnostic(`${whole.length} bytes`);
  assert.equal(await codeOf(path), 'whole');
  assert.deepEqual((await verifyImage(path)).findings, []);
  const fd = openSync(path, 'r+');
  t.after(() => closeSync(fd));
  const missed: string[] = [];
  for (let at = 0; at < whole.length; at++) {
    const original = whole[at] ?? 0;
    // Another single bit at each place, and once in a while all of them.
    const flipped = original ^ (at % 9 === 8 ? 0xff : 1 << (at % 9));
    writeSync(fd, Uint8Array.of(flipped), 0, 1, at);
    const code = await codeOf(path);
    if (code !== 'IMAGE_DAMAGED') missed.push(`reader, byte ${at}: ${code}`);
    const findings = (await verifyImage(path)).findings.length;
    if (findings === 0) missed.push(`verify, byte ${at}`);
    writeSync(fd, Uint8Array.of(original), 0, 1, at);
  }
  assert.deepEqual(missed, []);
  assert.equal(await codeOf(path), 'whole');
  assert.equal(nativeImage().openImages(), 0);
});

test('every truncation, and bytes too many, are detected', async (t) => {
  const dir = tempDir(t);
  const path = join(dir, 'small.dormouse');
  const whole = await smallImage(path);
  const copy = join(dir, 'cut.dormouse');
  copyFileSync(path, copy);
  const fd = openSync(copy, 'r+');
  t.after(() => closeSync(fd));
  for (let size = whole.length - 1; size >= 0; size--) {
    ftruncateSync(fd, size);
    assert.equal(await codeOf(copy), 'IMAGE_DAMAGED', `cut to ${size}`);
    if (size % 64 === 0) assert.ok((await verifyImage(copy)).findings.length > 0, `cut to ${size}`);
  }
  for (const extra of [1, 511, 4096, 8192]) {
    writeFileSync(copy, Buffer.concat([whole, Buffer.alloc(extra)]));
    assert.equal(await codeOf(copy), 'IMAGE_DAMAGED', `${extra} bytes more`);
    assert.ok((await verifyImage(copy)).findings.length > 0, `${extra} bytes more`);
  }
  assert.equal(nativeImage().openImages(), 0);
});

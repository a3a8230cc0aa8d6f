/** SHA-256 by the addon against node:crypto, over chunks of any length; and what a flipped byte of one comes to. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { compressions } from '../../src/codec/compression.js';
import { CHUNK_ENTRY_SIZE } from '../../src/image/format.js';
import { verifyImage } from '../../src/image/verify.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

interface Digested {
  readonly offset: number;
  readonly span: number;
  readonly digest: Buffer;
}

/** By the places that docs/image-format.md gives them. */
function digestsOf(file: Buffer): Digested[] {
  const footer = file.length - 4096;
  const at = (field: number): number => Number(file.readBigUInt64LE(footer + field));
  return Array.from({ length: at(360) / CHUNK_ENTRY_SIZE }, (_, i) => {
    const entry = at(352) + i * CHUNK_ENTRY_SIZE;
    const digest = file.subarray(at(496) + i * 32, at(496) + (i + 1) * 32);
    return { offset: Number(file.readBigUInt64LE(entry)), span: file.readUInt32LE(entry + 8), digest };
  });
}

test('the digest of each chunk is the SHA-256 of its bytes, and a byte that flips is found', async (t) => {
  const path = join(tempDir(t), 'image');
  const parameters = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 900 }), fc.constantFrom(...compressions));
  const spans = new Set<number>();
  await fc.assert(
    fc.asyncProperty(parameters, async ([seed, nrPfns, compression]) => {
      const next = random(seed);
      const pages = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next));
      await writeImage(path, nrPfns, [pages], { chunkDigests: true, compression });
      const file = readFileSync(path);
      const digests = digestsOf(file);
      for (const { offset, span, digest } of digests) {
        spans.add(span);
        const expected = createHash('sha256')
          .update(file.subarray(offset, offset + span))
          .digest();
        assert.deepEqual(digest, expected);
      }
      const [first] = digests;
      if (first) {
        const at = first.offset + next(first.span);
        file.writeUInt8(file.readUInt8(at) ^ (1 << next(8)), at);
        writeFileSync(path, file);
        const { findings } = await verifyImage(path);
        assert.deepEqual([findings.length > 0, findings[0]?.chunk], [true, 0]);
      }
      rmSync(path);
    }),
    { numRuns: 40 },
  );
  assert.ok(spans.size > 10, 'of many lengths');
});

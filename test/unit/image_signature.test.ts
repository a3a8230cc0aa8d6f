import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FLAG_CHUNK_DIGESTS, FOOTER, HEADER } from '../../src/image/format.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { signedMessage, type SignRoot } from '../../src/image/signature.js';
import { verifyImage } from '../../src/image/verify.js';
import { put, putTogether, takeApart } from '../support/forge.js';
import { page, random, tempDir, writeImage } from '../support/images.js';

const next = random(3);
const pages = Array.from({ length: 20 }, (_, pfn) => page(pfn, next));

function signer(): { key: Buffer; signRoot: SignRoot } {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const key = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  return { key, signRoot: (root) => ({ key, signature: sign(null, signedMessage(root), privateKey) }) };
}

async function signerOf(path: string) {
  const reader = await ImageReader.open(path, { lanes: 1 });
  reader.close();
  return reader.signer;
}

test('a signed image says who signed it, and is the same image', async (t) => {
  const dir = tempDir(t);
  const { key, signRoot } = signer();
  const done = await writeImage(join(dir, 'signed'), 20, [pages], { sign: signRoot });
  const found = await signerOf(done.path);
  assert.deepEqual(found?.key, key);
  assert.deepEqual(found.signature, signRoot(Buffer.from(done.root, 'hex')).signature);
  assert.deepEqual((await verifyImage(done.path)).findings, []);
  await writeImage(join(dir, 'plain'), 20, [pages]);
  assert.equal(await signerOf(join(dir, 'plain')), null);
});

test('a signature over something else is damage', async (t) => {
  const path = join(tempDir(t), 'image');
  const { signRoot } = signer();
  await writeImage(path, 20, [pages], { sign: signRoot });
  const whole = readFileSync(path);
  const changes: Record<string, (footer: Buffer) => unknown> = {
    "another's key": (footer) => signer().key.copy(footer, FOOTER.signerKey[0]),
    'no key': (footer) => footer.fill(0, FOOTER.signerKey[0], FOOTER.signerKey[0] + 32),
    'no signature': (footer) => footer.fill(0, FOOTER.signature[0], FOOTER.signature[0] + 64),
    'of another root': (footer) => signRoot(Buffer.alloc(32)).signature.copy(footer, FOOTER.signature[0]),
  };
  for (const [what, change] of Object.entries(changes)) {
    writeFileSync(
      path,
      putTogether(takeApart(whole), (footer) => void change(footer)),
    );
    await assert.rejects(signerOf(path), { code: 'IMAGE_DAMAGED' }, what);
    assert.ok((await verifyImage(path)).findings.length > 0, what);
    assert.ok((await inspectImage(path)).damage.length > 0, what);
  }
});

test('an image that was changed under its signature is damaged, though all else was made right again', async (t) => {
  const path = join(tempDir(t), 'image');
  await writeImage(path, 20, [pages], { sign: signer().signRoot });
  const parts = takeApart(readFileSync(path));
  put(parts.header, HEADER.mayIgnore, (1n << 60n) | FLAG_CHUNK_DIGESTS);
  writeFileSync(path, putTogether(parts));
  await assert.rejects(signerOf(path), { code: 'IMAGE_DAMAGED', message: /signature/ });
  assert.match((await verifyImage(path)).findings[0]?.what ?? '', /signature/);
});

test('a signer that signs nothing abandons the image', async (t) => {
  const dir = tempDir(t);
  const bad: SignRoot = () => ({ key: Buffer.alloc(32, 1), signature: Buffer.alloc(64, 1) });
  await assert.rejects(writeImage(join(dir, 'image'), 20, [pages], { sign: bad }), { code: 'INTERNAL' });
});

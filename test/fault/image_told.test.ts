/** What the verbs say of images that are damaged in one place: nothing that is not so. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { engine } from '../../src/cli/services.js';
import { decodeFooter } from '../../src/image/frame.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { cli, type Ran } from '../support/cli.js';
import { writeIncrement } from '../support/chains.js';
import { page, pvhDomain, random, tempDir, writeImage } from '../support/images.js';

const whole = readFileSync(join(packageRoot, 'test/golden/format-1.0-signed.dormouse'));
const { regions } = decodeFooter(whole.subarray(-pageBytes));

function flipped(at: number): Buffer {
  const bytes = Buffer.from(whole);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

const image = (...argv: string[]): Promise<Ran> => cli(engine, ['image', ...argv]);

test('a damaged header takes nothing else along', async (t) => {
  const path = join(tempDir(t), 'a.dmi');
  for (const at of [0, 9, 100]) {
    writeFileSync(path, flipped(at));
    const verified = await image('verify', path);
    assert.equal(verified.exitCode, 3);
    assert.match(verified.stdout, /DAMAGED, 1 finding\noffset 0: the header/u, `byte ${at}`);
    const inspected = await image('inspect', path);
    assert.equal(inspected.exitCode, 3);
    assert.match(inspected.stdout, /signed by: +cannot be told/u);
    assert.doesNotMatch(inspected.stdout, /trusted|TRUSTED/u);
    const { signer, signerKey } = JSON.parse((await image('inspect', path, '--json')).stdout) as {
      signer: string | null;
      signerKey: string | null;
    };
    assert.deepEqual([signer, signerKey], [null, null]);
    const converted = await image('convert', path, `${path}.xl`);
    assert.equal(converted.exitCode, 12);
    assert.doesNotMatch(converted.stderr, /save the guest again/u);
    if (at === 0) assert.match(converted.stderr, /not a dormouse image, or its first page is damaged/u);
  }
});

test('what inspect does not read it does not judge', async (t) => {
  const path = join(tempDir(t), 'a.dmi');
  writeFileSync(path, flipped(regions.chunkDigests.offset));
  const { exitCode, stdout } = await image('inspect', path);
  assert.equal(exitCode, 0);
  assert.match(stdout, /damage: +none met in header, .*; not read: page map, hashes, digests, pages/u);
  writeFileSync(path, whole);
  assert.match((await image('inspect', path)).stdout, /signed by: +\S+ \(NOT TRUSTED here\)/u);
});

test('a file that grew is not told as one that was cut short', async (t) => {
  const path = join(tempDir(t), 'a.dmi');
  for (const more of [1, pageBytes, 3 * pageBytes + 5]) {
    writeFileSync(path, Buffer.concat([whole, Buffer.alloc(more)]));
    const says = new RegExp(`${more} bytes? longer than the image in it`, 'u');
    for (const verb of ['verify', 'inspect']) {
      const { exitCode, stdout } = await image(verb, path);
      assert.equal(exitCode, 3);
      assert.match(stdout, says);
      assert.doesNotMatch(stdout, /cut short/u);
    }
    assert.match((await image('convert', path, `${path}.xl`)).stderr, says);
  }
  writeFileSync(path, whole.subarray(0, -1));
  assert.match((await image('verify', path)).stdout, /cut short or never completed/u);
});

test('garbage is unreadable once', async (t) => {
  const path = join(tempDir(t), 'a.dmi');
  writeFileSync(path, Buffer.alloc(3 * pageBytes, 7));
  const { stdout } = await image('inspect', path);
  assert.match(stdout, /written: +unreadable\n/u);
  assert.match(stdout, /signed by: +cannot be told/u);
});

test('an error of a damaged chunk names the file that it is in', async (t) => {
  const dir = tempDir(t);
  const [path, child] = [join(dir, 'parent of all.dmi'), join(dir, 'c.dmi')];
  const pages = Array.from({ length: 64 }, (_, pfn) => page(pfn, random(pfn + 1)));
  await writeImage(path, 64, [pages], {}, { domain: pvhDomain });
  await writeIncrement(child, path, 64, [{ pfn: 0, pageClass: 'zero', type: 0, body: null }]);
  const good = readFileSync(path);
  good.fill(0xff, 2 * pageBytes, 2 * pageBytes + 64);
  writeFileSync(path, good);
  for (const given of [path, child]) {
    const { exitCode, stderr } = await cli(engine, ['digest', '--image', given]);
    assert.equal(exitCode, 12, stderr);
    assert.ok(stderr.startsWith(`dormouse: ${path}`), stderr);
    assert.match(stderr, /chunk 0 at offset 4096/u);
    assert.ok(stderr.includes(`path ${path}`), stderr);
    assert.ok(!stderr.includes('FILE'), stderr);
  }
});

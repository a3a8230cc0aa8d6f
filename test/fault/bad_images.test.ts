/** `restore` of what is no whole image: a named error and its exit code, no domain, no frame taken. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { ErrorCode } from '../../src/errors.js';
import { FOOTER, HEADER, MAX_PFNS, type Field } from '../../src/image/format.js';
import { decodeFooter, rootOf, storedHash } from '../../src/image/frame.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { failure } from '../support/command.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { Undisturbed } from '../support/interrupt.js';
import { fileOf, pvParts } from '../support/xen_stream.js';
import { pageBytes } from '../../src/pfn/page_words.js';

function store(bytes: Buffer, [offset, size]: Field, value: number | bigint, base = 0): void {
  if (size === 8) bytes.writeBigUInt64LE(BigInt(value), base + offset);
  else bytes.writeUIntLE(Number(value), base + offset, size);
}

/** Makes checksums and root right again, so that only what was changed can be wrong. */
function sealed(image: Buffer): Buffer {
  const bytes = Buffer.from(image);
  const seal = (page: Buffer): void => {
    page.write(storedHash(page.subarray(0, HEADER.checksum[0])), HEADER.checksum[0], 'hex');
  };
  const [header, footer] = [bytes.subarray(0, pageBytes), bytes.subarray(-pageBytes)];
  seal(header);
  footer.write(rootOf(header, footer), FOOTER.root[0], 'hex');
  seal(footer);
  return bytes;
}

function changed(image: Buffer, change: (bytes: Buffer, footerAt: number) => void): Buffer {
  const bytes = Buffer.from(image);
  change(bytes, bytes.length - pageBytes);
  return sealed(bytes);
}

/** Claims as many pages as the format allows, all zero: a file of some KiB for a domain of terabytes. */
function bomb(image: Buffer): Buffer {
  return changed(image, (bytes, at) => {
    store(bytes, HEADER.nrPfns, MAX_PFNS);
    for (const field of [FOOTER.nrPfns, FOOTER.storedPages, FOOTER.pageMapRuns])
      store(bytes, field, MAX_PFNS, at);
    bytes.fill(0, at + FOOTER.classCounts[0], at + FOOTER.classCounts[0] + FOOTER.classCounts[1]);
    store(bytes, [FOOTER.classCounts[0] + 16, 8], MAX_PFNS, at);
  });
}

/** One flipped byte in each region. */
function flips(image: Buffer): Record<string, Buffer> {
  const footerAt = image.length - pageBytes;
  const { regions } = decodeFooter(image.subarray(footerAt));
  const places: Record<string, number> = {
    magic: 0,
    header: HEADER.nrPfns[0],
    'first chunk': pageBytes + 8,
    'last chunk': regions.manifest.offset - pageBytes + 1,
    manifest: regions.manifest.offset + 20,
    'chunk table': regions.chunkTable.offset + 3,
    'page map': regions.pageMap.offset + 9,
    footer: footerAt + FOOTER.classCounts[0] + 8,
    root: footerAt + FOOTER.root[0],
    'last byte': image.length - 1,
  };
  return Object.fromEntries(
    Object.entries(places).map(([name, place]) => {
      const bytes = Buffer.from(image);
      bytes[place] = (bytes[place] ?? 0) ^ 0x10;
      return [`flipped in ${name}`, bytes];
    }),
  );
}

const exits: Partial<Record<ErrorCode, number>> = {
  IMAGE_NOT_FOUND: 10,
  IMAGE_DAMAGED: 12,
  IMAGE_INCOMPATIBLE: 13,
};

/** Contents by name, with the error each must give. */
function hostileFiles(image: Buffer): [name: string, bytes: Buffer, code: ErrorCode][] {
  const flipped = Object.entries(flips(image)).map(
    ([name, bytes]) => [name, bytes, 'IMAGE_DAMAGED'] as [string, Buffer, ErrorCode],
  );
  return [
    ...flipped,
    ['empty', Buffer.alloc(0), 'IMAGE_DAMAGED'],
    ['text', Buffer.from('memory = 64\n'), 'IMAGE_DAMAGED'],
    ['only the header', image.subarray(0, pageBytes), 'IMAGE_DAMAGED'],
    ['cut in a chunk', image.subarray(0, 3 * pageBytes - 7), 'IMAGE_DAMAGED'],
    ['one byte short', image.subarray(0, -1), 'IMAGE_DAMAGED'],
    ['one page longer', Buffer.concat([image, Buffer.alloc(pageBytes)]), 'IMAGE_DAMAGED'],
    ['newer major', changed(image, (bytes) => store(bytes, HEADER.major, 2)), 'IMAGE_INCOMPATIBLE'],
    [
      'unknown flag',
      changed(image, (bytes) => store(bytes, HEADER.mustUnderstand, 1n << 40n)),
      'IMAGE_INCOMPATIBLE',
    ],
    ['bomb', bomb(image), 'IMAGE_DAMAGED'],
    ['xl save file of nonsense', fileOf(pvParts()), 'IMAGE_DAMAGED'],
  ];
}

test('what is no whole image becomes no domain', async (t) => {
  const host = await startTestHost(t);
  t.after(closeWorkers);
  const dir = tempDir(t);
  await host.create(guestSpec('guest', { program: 'churner', rate: 1000 }, { memoryMib: 4 }), {
    paused: false,
  });
  const whole = join(dir, 'whole.dmi');
  await checkpoint(host, 'guest', whole, { mode: 'light' });
  const image = readFileSync(whole);
  assert.ok(sealed(image).equals(image), 'sealing again changes nothing');
  await host.destroy((await host.find('guest')).domid);
  const before = await Undisturbed.note(host, dir);
  const refused = async (path: string, code: ErrorCode): Promise<string> => {
    const startedMs = performance.now();
    const error = await failure(t, code, exits[code] ?? 1, ['restore', '--host', 'embedded:test', path]);
    assert.ok(performance.now() - startedMs < 10_000, `${path} takes too long`);
    assert.deepEqual(await host.list(), [], path);
    await before.assertHost(5000);
    return error.message;
  };
  const messages: Record<string, string> = {};
  for (const [name, bytes, code] of hostileFiles(image)) {
    const path = join(dir, name);
    writeFileSync(path, bytes);
    messages[name] = await refused(path, code);
  }
  assert.match(messages['xl save file of nonsense'] ?? '', /page table at pfn/u);
  const asImage = ['digest', '--image', join(dir, 'xl save file of nonsense')];
  assert.match((await failure(t, 'IMAGE_INCOMPATIBLE', 13, asImage)).message, /convert it first/u);
  assert.match(messages.text ?? '', /not a dormouse image/u);
  assert.match(messages['newer major'] ?? '', /format 2\./u);
  mkdirSync(join(dir, 'folder'));
  assert.equal(spawnSync('mkfifo', [join(dir, 'fifo')]).status, 0);
  for (const name of ['missing', 'folder', 'fifo']) await refused(join(dir, name), 'IMAGE_NOT_FOUND');
});

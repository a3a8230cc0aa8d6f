/** Deltas that rest on what they should not, with every checksum right: no page is given, and the verifier finds it. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openParent } from '../../src/capture/parent_image.js';
import { asDormouseError, type DormouseError } from '../../src/errors.js';
import { DeltaBases } from '../../src/image/delta_bases.js';
import {
  CHUNK_HEADER,
  CHUNK_HEADER_SIZE,
  CHUNK_RUN_SIZE,
  DELTA_BASE,
  FLAG_PARENT,
  FULL_MAP_EVERY,
  HEADER,
  type Field,
} from '../../src/image/format.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { type CommittedImage, ImageWriter, parentOf } from '../../src/image/writer.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { put, putTogether, takeApart, type Parts } from '../support/forge.js';
import { append, manifestFor, pvhDomain, random, tempDir } from '../support/images.js';

const nrPfns = 24;
/** So many first pages change in each image. */
const changing = 10;

/** Holds what the first page holds at first, and keeps it. */
const twin = changing + 1;

/** Three images; those of the second and third are deltas, all on the first. */
async function threeImages(dir: string, changingLast = changing): Promise<string[]> {
  const next = random(7);
  const bases = new DeltaBases(nrPfns * pageBytes);
  const memory = Array.from({ length: nrPfns }, () => {
    const page = Buffer.alloc(pageBytes);
    for (let at = 0; at < pageBytes; at += 8) page.writeUInt16LE(next(1 << 14), at);
    return page;
  });
  memory[0]?.copy(memory[twin] ?? Buffer.alloc(0));
  const paths: string[] = [];
  let parent: CommittedImage | undefined;
  for (const name of ['first', 'second', 'third']) {
    const path = join(dir, name);
    const writer = await ImageWriter.create(path, {
      ...{ nrPfns, lanes: 1, consistency: 'suspend-point', pageHashes: true, deltas: bases },
      ...(parent && { parent }),
    });
    const written = parent ? memory.slice(0, name === 'third' ? changingLast : changing) : memory;
    if (parent) for (const page of written) page.writeUInt32LE(next(0xffff_ffff), 80);
    append(
      writer,
      0,
      written.map((body, pfn) => ({ pfn, pageClass: 'data', type: 0, body })),
    );
    parent = await writer.commit(manifestFor(nrPfns, writer.counts(), { domain: pvhDomain }));
    paths.push(path);
  }
  bases.close();
  return paths;
}

function basesAt(chunk: Buffer): number {
  const get = ([offset, size]: Field) => chunk.readUIntLE(offset, size);
  const { payloadSize, blocks, runs } = CHUNK_HEADER;
  return CHUNK_HEADER_SIZE + get(payloadSize) + 4 * get(blocks) + CHUNK_RUN_SIZE * get(runs);
}

const baseField =
  (name: keyof typeof DELTA_BASE, value: number) =>
  ({ chunks: [chunk = Buffer.alloc(0)] }: Parts): void =>
    put(chunk, DELTA_BASE[name], value, basesAt(chunk));

const changes: Record<string, (parts: Parts) => void> = {
  'a chunk that is not there': baseField('chunk', 99),
  'the last chunk there can be': baseField('chunk', 0xffff_ffff),
  'a slot that is not there': baseField('slot', nrPfns),
  'a slot beyond all': baseField('slot', 256),
  'another page': baseField('slot', 1),
  'another page of the same content': baseField('slot', twin),
  'its own image': baseField('age', 0),
  'an image too old': baseField('age', 33),
  'an image that is not named': baseField('age', 7),
  'the greatest age': baseField('age', 0xffff),
  'a delta': baseField('age', 1),
  'another change': ({ chunks: [chunk] }) => {
    if (chunk) chunk[CHUNK_HEADER_SIZE + 6] = (chunk[CHUNK_HEADER_SIZE + 6] ?? 0) ^ 1;
  },
  'another hash': ({ regions }) => {
    regions.pageHashes[3] = (regions.pageHashes[3] ?? 0) ^ 1;
  },
  'whole pages': ({ chunks: [chunk] }) => chunk && put(chunk, CHUNK_HEADER.kind, 1),
  'no flag': ({ header }) => put(header, HEADER.mustUnderstand, FLAG_PARENT),
};

type Way = (path: string) => Promise<void>;

const opened =
  (mapOnly: boolean, read: (reader: ImageReader) => unknown): Way =>
  async (path) => {
    const reader = await ImageReader.open(path, { lanes: 2, mapOnly });
    try {
      read(reader);
    } finally {
      reader.close();
    }
  };

const readChunks = (reader: ImageReader): unknown =>
  Array.from({ length: reader.nrChunks }, (_, chunk) => reader.readChunk(1, chunk));

const ways: Record<string, Way> = {
  'by page': opened(true, (reader) => reader.readPages([0])),
  'by chunk': opened(false, readChunks),
  'as a parent that is read whole': async (path) => {
    (await openParent(path, { signed: false, whole: true })).close();
  },
};

async function tried(path: string, way: Way): Promise<DormouseError | null> {
  try {
    await way(path);
    return null;
  } catch (thrown) {
    return asDormouseError(thrown);
  }
}

async function refused(t: TestContext, path: string, name: string): Promise<DormouseError[]> {
  const errors: DormouseError[] = [];
  for (const [way, how] of Object.entries(ways)) {
    const error = await tried(path, how);
    assert.equal(error?.code, 'IMAGE_DAMAGED', `${name}, ${way}: ${error?.message ?? 'it was read'}`);
    errors.push(error);
  }
  const { findings } = await verifyImage(path);
  assert.ok(findings.length > 0, `${name}: the verifier finds nothing`);
  t.diagnostic(`${name}: ${errors[0]?.message ?? ''} / ${findings[0]?.what ?? ''}`);
  return errors;
}

test('what deltas cannot rest on', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const [, , third = ''] = await threeImages(dir);
  for (const way of Object.values(ways)) assert.equal(await tried(third, way), null);
  const unfollowed = await tried(third, opened(true, readChunks));
  assert.deepEqual([unfollowed?.code, unfollowed?.message], ['INTERNAL', 'deltas were not followed']);
  assert.deepEqual((await verifyImage(third)).findings, []);
  const whole = readFileSync(third);
  const forged = join(dir, 'forged');
  for (const [name, change] of Object.entries(changes)) {
    const parts = takeApart(whole);
    change(parts);
    writeFileSync(forged, putTogether(parts));
    await refused(t, forged, name);
  }
});

test('a delta does not rest on one that counts', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const [, , third = ''] = await threeImages(dir, 3);
  for (const way of Object.values(ways)) assert.equal(await tried(third, way), null);
  const parts = takeApart(readFileSync(third));
  baseField('age', 1)(parts);
  writeFileSync(third, putTogether(parts));
  for (const { message } of await refused(t, third, 'a delta')) assert.match(message, /rests on a delta$/);
});

test('a damaged base is named, with the page that is lost', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const [first = '', , third = ''] = await threeImages(dir);
  const bytes = readFileSync(first);
  bytes[pageBytes + 200] = (bytes[pageBytes + 200] ?? 0) ^ 1;
  writeFileSync(first, bytes);
  for (const error of await refused(t, third, 'damage')) {
    assert.match(
      error.message,
      /first, which .*third needs: chunk 0 .*(pfn 0 of third rests on it|deltas of 0, 1, 2, 3 and 6 more rest on it)/,
    );
  }
});

test('a guest does not end on a parent of which a chunk is damaged that deltas alone rest on', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const next = random(11);
  const bases = new DeltaBases(300 * pageBytes);
  const body = Buffer.from(Array.from({ length: pageBytes }, () => next(1 << 8)));
  const paths: string[] = [];
  let parent: CommittedImage | undefined;
  for (const name of ['first', 'second']) {
    const path = join(dir, name);
    const writer = await ImageWriter.create(path, {
      ...{ nrPfns: 300, lanes: 1, consistency: 'suspend-point', pageHashes: true, deltas: bases },
      ...(parent && { parent }),
    });
    // Of the first image all of the first chunk changes.
    const pfns = Array.from({ length: parent ? 256 : 300 }, (_, pfn) => pfn);
    if (parent) body.writeUInt32LE(next(0xffff_ffff), 80);
    append(
      writer,
      0,
      pfns.map((pfn) => ({ pfn, pageClass: 'data', type: 0, body })),
    );
    parent = await writer.commit(manifestFor(300, writer.counts(), { domain: pvhDomain }));
    paths.push(path);
  }
  bases.close();
  const [first = '', second = ''] = paths;
  const mapped = await ImageReader.open(second, { lanes: 1, mapOnly: true });
  const followed = await ImageReader.open(second, { lanes: 1 });
  assert.equal(followed.nrChunks, mapped.nrChunks + 1, 'no page of that chunk is sought');
  mapped.close();
  followed.close();
  const whole = { signed: false, whole: true };
  (await openParent(second, whole)).close();
  const bytes = readFileSync(first);
  bytes[pageBytes + 200] = (bytes[pageBytes + 200] ?? 0) ^ 1;
  writeFileSync(first, bytes);
  (await openParent(second, { ...whole, whole: false })).close();
  await assert.rejects(openParent(second, whole), { code: 'IMAGE_DAMAGED', message: /rest on it/ });
});

/** Eight pages, most of which are written whole again and again: so much is superseded that a map of all pages leaves files out. */
async function busyChain(dir: string, seed: number, after: (path: string) => Promise<void>): Promise<void> {
  const next = random(seed);
  const bases = new DeltaBases(64 * pageBytes);
  const page = (): Buffer => {
    const made = Buffer.alloc(pageBytes);
    for (let at = 0; at < pageBytes; at += 8) made.writeUInt16LE(next(1 << 14), at);
    return made;
  };
  const memory = Array.from({ length: 8 }, page);
  let parent: CommittedImage | undefined;
  for (let number = 0; number < 36; number++) {
    const due = parent && (parent.sequence + 1) % FULL_MAP_EVERY === 0;
    const on =
      parent && due ? parentOf(await ImageReader.open(parent.path, { lanes: 1, mapOnly: true })) : parent;
    const writer = await ImageWriter.create(join(dir, `${seed}-${number}`), {
      ...{ nrPfns: 8, lanes: 1, consistency: 'suspend-point', pageHashes: true, deltas: bases },
      ...(on && { parent: on, closesParent: true }),
    });
    for (const [pfn, before] of memory.entries()) {
      if (parent && next(3) > 0) continue;
      const body = next(4) === 0 ? page() : Buffer.from(before);
      body.writeUInt32LE(next(0xffff_ffff), 4 * next(1024));
      memory[pfn] = body;
      append(writer, 0, [{ pfn, pageClass: 'data', type: 0, body }]);
    }
    parent = await writer.commit(manifestFor(8, writer.counts(), { domain: pvhDomain }));
    if (number >= FULL_MAP_EVERY - 1) await after(parent.path);
  }
  bases.close();
}

test('deltas that do not count may rest on what the image does not name', async (t) => {
  const dir = tempDir(t);
  for (const seed of [1, 2, 3])
    await busyChain(dir, seed, async (path) => {
      assert.deepEqual((await verifyImage(path)).findings, [], path);
      assert.equal(await tried(path, opened(false, readChunks)), null, path);
    });
});

/** Deltas that rest on what they should not, with every checksum right: no page is given, and the verifier finds it. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { asDormouseError, type DormouseError } from '../../src/errors.js';
import { DeltaBases } from '../../src/image/delta_bases.js';
import {
  CHUNK_HEADER,
  CHUNK_HEADER_SIZE,
  CHUNK_RUN_SIZE,
  DELTA_BASE,
  FLAG_PARENT,
  HEADER,
  type Field,
} from '../../src/image/format.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { type CommittedImage, ImageWriter } from '../../src/image/writer.js';
import { pageBytes } from '../../src/pfn/page_words.js';
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

interface Way {
  readonly mapOnly: boolean;
  readonly read: (reader: ImageReader) => unknown;
}

async function tried(path: string, { mapOnly, read }: Way): Promise<DormouseError | null> {
  let reader: ImageReader | undefined;
  try {
    reader = await ImageReader.open(path, { lanes: 2, mapOnly });
    read(reader);
    return null;
  } catch (thrown) {
    return asDormouseError(thrown);
  } finally {
    reader?.close();
  }
}

const ways = {
  'by page': { mapOnly: true, read: (reader) => reader.readPages([0]) },
  'by chunk': {
    mapOnly: false,
    read: (reader) => Array.from({ length: reader.nrChunks }, (_, chunk) => reader.readChunk(1, chunk)),
  },
} satisfies Record<string, Way>;

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
  const dir = tempDir(t);
  const [, , third = ''] = await threeImages(dir);
  for (const way of Object.values(ways)) assert.equal(await tried(third, way), null);
  const unfollowed = await tried(third, { ...ways['by chunk'], mapOnly: true });
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
  const dir = tempDir(t);
  const [, , third = ''] = await threeImages(dir, 3);
  for (const way of Object.values(ways)) assert.equal(await tried(third, way), null);
  const parts = takeApart(readFileSync(third));
  baseField('age', 1)(parts);
  writeFileSync(third, putTogether(parts));
  for (const { message } of await refused(t, third, 'a delta')) assert.match(message, /rests on a delta$/);
});

test('a damaged base is named, with the page that is lost', async (t) => {
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

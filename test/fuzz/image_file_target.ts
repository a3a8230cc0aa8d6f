/**
 * Whole images on disk, an increment among them: an input is changes to the parts of one, after which every checksum and hash is
 * right again. Reader and verifier share no code, and what the verifier calls whole the reader must be able to read.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asDormouseError, DormouseError } from '../../src/errors.js';
import { REGIONS } from '../../src/image/format.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { writeIncrement } from '../support/chains.js';
import { putTogether, takeApart, type Parts } from '../support/forge.js';
import { body, page, pvhDomain, random, writeImage, type TestPage } from '../support/images.js';
import type { Target } from './target.js';

const nrPfns = 24;

export interface SeedImage {
  /** File name, in a folder with those it rests on. */
  readonly name: string;
  readonly bytes: Buffer;
  readonly parts: Parts;
}

let made: Promise<readonly SeedImage[]> | undefined;

/** A full image with hashes, one without, and an increment. Made once a process. */
export function seedImages(): Promise<readonly SeedImage[]> {
  made ??= makeSeeds();
  return made;
}

const scratch = mkdtempSync(join(tmpdir(), 'dormouse-fuzz-'));
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));

async function makeSeeds(): Promise<readonly SeedImage[]> {
  const next = random(5);
  const all = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next));
  const changed: TestPage[] = [3, 9].map((pfn) => ({ pfn, pageClass: 'data', type: 0, body: body(next) }));
  const paths = ['full', 'bare', 'increment'].map((name) => join(scratch, name));
  const [full = '', bare = '', increment = ''] = paths;
  const domain = { domain: pvhDomain };
  await writeImage(full, nrPfns, [all], { lanes: 1, pageHashes: true }, domain);
  await writeImage(bare, nrPfns, [all.slice(0, 12), all.slice(12)], { lanes: 1, pageHashes: false }, domain);
  await writeIncrement(increment, full, nrPfns, [
    ...all.filter(({ pfn }) => pfn !== 3 && pfn !== 9),
    ...changed,
  ]);
  return paths.map((path, i) => {
    const bytes = readFileSync(path);
    return { name: ['full', 'bare', 'increment'][i] ?? '', bytes, parts: takeApart(bytes) };
  });
}

const partsOf = ({ header, chunks, regions, footer }: Parts): Buffer[] => [
  ...[header, footer, regions.pageMap, regions.chunkTable, regions.ancestors, regions.manifest],
  ...chunks,
  ...[regions.pageHashes, regions.chunkDigests],
];

const editBytes = 6;

/** Six bytes an edit: which part, where in 1/65536 of it or from its start, and what is put there. */
function edit(parts: Parts, by: Buffer): void {
  const list = partsOf(parts);
  const which = by.readUInt8(0);
  const part = list[which % list.length];
  if (!part || part.length === 0) return;
  const place = by.readUInt16LE(1);
  const at = which < 128 ? place % part.length : Math.floor((place * part.length) / 65_536);
  const kind = by.readUInt8(3);
  const value = by.readUInt16LE(4);
  if (kind === 255) {
    // Those that follow from the chunks have their size.
    const name = (['manifest', 'ancestors', 'pageMap', 'pageHashes'] as const)[value % 4] ?? 'manifest';
    parts.regions[name] = parts.regions[name].subarray(0, at);
  } else if (kind < 128) part[at] = value & 0xff;
  else part.fill(by.subarray(4, 6), at, Math.min(part.length, at + 2));
}

const copyOf = ({ parts: { header, chunks, regions, footer } }: SeedImage): Parts => ({
  header: Buffer.from(header),
  chunks: chunks.map((chunk) => Buffer.from(chunk)),
  regions: Object.fromEntries(REGIONS.map((name) => [name, Buffer.from(regions[name])])) as Parts['regions'],
  footer: Buffer.from(footer),
});

const codes = ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE', 'IMAGE_NOT_FOUND'] as const;

/** Null, or why it cannot be read. Anything but an error of the list is thrown. */
async function readAll(path: string): Promise<DormouseError | null> {
  try {
    const reader = await ImageReader.open(path, { lanes: 1, pageHashes: true });
    try {
      assert.ok(reader.nrPfns >= 1);
      for (let chunk = 0; chunk < reader.nrChunks; chunk++) reader.readChunk(0, chunk);
      const few = Array.from({ length: Math.min(reader.nrPfns, 64) }, (_, pfn) => pfn);
      reader.readPages(few);
      for (const { level } of reader.tables()) assert.ok(level >= 1 && level <= 4);
      reader.frameRuns();
    } finally {
      reader.close();
    }
    return null;
  } catch (thrown) {
    const error = asDormouseError(thrown);
    if (!(codes as readonly string[]).includes(error.code)) throw thrown;
    return error;
  }
}

async function take(input: Buffer): Promise<void> {
  const seeds = await seedImages();
  const seed = seeds[(input[0] ?? 0) % seeds.length];
  if (!seed) return;
  const parts = copyOf(seed);
  for (let at = 1; at + editBytes <= Math.min(input.length, 1 + 32 * editBytes); at += editBytes)
    edit(parts, input.subarray(at, at + editBytes));
  const path = join(scratch, 'forged');
  writeFileSync(path, putTogether(parts));
  const refused = await readAll(path);
  await inspectImage(path).catch((thrown: unknown) => {
    assert.ok(refused, 'the reader takes what cannot be inspected');
    const error = asDormouseError(thrown);
    assert.ok((codes as readonly string[]).includes(error.code), error.stack);
  });
  const { findings } = await verifyImage(path);
  if (refused) assert.notEqual(findings.length, 0, `whole, says the verifier, but: ${refused.message}`);
}

export const imageFileTarget: Target = {
  codes,
  seeds: () => [
    ...[0, 1, 2].map((which) => Buffer.from([which])),
    // Fields of the page map and the chunk table, of header, footer and a chunk.
    ...[2, 3, 0, 1, 6].map((part) => Buffer.from([0, part, 8, 0, 0, 2, 0, part, 12, 0, 128, 1, 0])),
    Buffer.from([2, 4, 56, 0, 0, 3, 0]),
  ],
  run: take,
};

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { tmpdir } from 'node:os';
import { asDormouseError } from '../../src/errors.js';
import {
  CHUNK_ENTRY,
  CHUNK_HEADER,
  CHUNK_HEADER_SIZE,
  FOOTER,
  FORMER_HEADER_MAGIC,
  HEADER,
  MAP_BLOCK,
  MAP_RUN,
  MAP_RUN_SIZE,
} from '../../src/image/format.js';
import { decodeManifest, encodeManifest } from '../../src/image/manifest.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageReader } from '../../src/image/reader.js';
import { inspectImage } from '../../src/image/inspect.js';
import { verifyImage } from '../../src/image/verify.js';
import { lz4Compress, lz4Decompress } from '../../src/codec/lz4.js';
import { put, putTogether, takeApart, type Parts } from '../support/forge.js';
import { countPages, manifestFor, random, writeImage, type TestPage } from '../support/images.js';
import { pageBytes } from '../../src/pfn/page_words.js';

const dir = mkdtempSync(join(tmpdir(), 'dormouse-hostile-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
const path = join(dir, 'image');
let whole: Buffer;

/** 300 pages: compressible data, page tables, zeroes, in two chunks. */
const pages: TestPage[] = Array.from({ length: 300 }, (_, pfn) =>
  pfn % 10 === 9
    ? { pfn, pageClass: 'zero', type: 0, body: null }
    : pfn % 10 === 8
      ? { pfn, pageClass: 'table', type: 0xc, body: Buffer.alloc(4096, pfn) }
      : { pfn, pageClass: 'data', type: 0, body: Buffer.alloc(4096, `page ${pfn} `) },
);

before(async () => {
  await writeImage(path, 300, [pages], { lanes: 1 });
  whole = readFileSync(path);
});

async function outcome(): Promise<{ code: string; chunk: number | undefined }> {
  try {
    const reader = await ImageReader.open(path, { lanes: 1 });
    try {
      for (let chunk = 0; chunk < reader.nrChunks; chunk++) reader.checkChunk(0, chunk);
      for (let chunk = 0; chunk < reader.nrChunks; chunk++) reader.readChunk(0, chunk);
    } finally {
      reader.close();
    }
    return { code: 'whole', chunk: undefined };
  } catch (thrown) {
    const error = asDormouseError(thrown);
    return { code: error.code, chunk: error.place.chunk };
  }
}

/** Reader and verifier must both refuse, within a second of CPU and 64 MiB; inspect must survive. */
async function refused(image: Buffer, code: string): Promise<void> {
  writeFileSync(path, image);
  const began = process.cpuUsage();
  const rss = process.memoryUsage().rss;
  assert.equal((await outcome()).code, code);
  const judged = await verifyImage(path).then(
    (report) => (report.findings.length > 0 ? 'IMAGE_DAMAGED' : 'whole'),
    (thrown: unknown) => asDormouseError(thrown).code,
  );
  assert.equal(judged, code, 'verify');
  await inspectImage(path).catch((thrown: unknown) => assert.equal(asDormouseError(thrown).code, code));
  const { user, system } = process.cpuUsage(began);
  assert.ok(user + system < 1_000_000, `${user + system} us of CPU`);
  assert.ok(process.memoryUsage().rss - rss < 64 << 20, `${(process.memoryUsage().rss - rss) >> 20} MiB`);
  assert.equal(nativeImage().openImages(), 0);
}

test('taking apart and putting together changes nothing', async () => {
  assert.ok(putTogether(takeApart(whole)).equals(whole));
  assert.deepEqual(await outcome(), { code: 'whole', chunk: undefined });
});

const first = (chunks: readonly Buffer[]): Buffer => chunks[0] ?? assert.fail('no chunk');

const changes: Record<string, [code: string, (parts: Parts) => unknown]> = {
  'a newer major': ['IMAGE_INCOMPATIBLE', ({ header }) => put(header, HEADER.major, 2)],
  'an unknown must-understand flag': [
    'IMAGE_INCOMPATIBLE',
    ({ header }) => put(header, HEADER.mustUnderstand, 1n << 63n),
  ],
  'a cipher': ['IMAGE_INCOMPATIBLE', ({ header }) => put(header, HEADER.cipher, 1)],
  'no pages': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.nrPfns, 0)],
  '2^32 pages': [
    'IMAGE_DAMAGED',
    ({ header }) => {
      put(header, HEADER.nrPfns, 2 ** 32);
      return (footer: Buffer) => {
        put(footer, FOOTER.nrPfns, 2 ** 32);
        put(footer, FOOTER.storedPages, 2 ** 32);
        put(footer, [FOOTER.classCounts[0] + 16, 8], 2 ** 32 - 270);
      };
    },
  ],
  '2^60 pages': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.nrPfns, 1n << 60n)],
  'an unknown consistency': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.consistency, 9)],
  'another consistency than the manifest': [
    'IMAGE_DAMAGED',
    ({ header }) => put(header, HEADER.consistency, 2),
  ],
  'the former magic': [
    'IMAGE_INCOMPATIBLE',
    ({ header }) => Buffer.from(FORMER_HEADER_MAGIC, 'hex').copy(header),
  ],
  'a footer of another image': ['IMAGE_DAMAGED', ({ footer }) => put(footer, [FOOTER.imageId[0], 4], 1)],
  'a chunk count beyond the file': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.chunkCount, 1n << 40n),
  ],
  'a chunk count that overflows': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.chunkCount, (1n << 59n) + 2n),
  ],
  'a manifest size beyond the file': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.manifestSize, 1n << 40n),
  ],
  'a page map size beyond the file': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.pageMapSize, 1n << 62n),
  ],
  'a page map of 2^32 runs': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.pageMapRuns, 2 ** 32),
  ],
  'one run too many': [
    'IMAGE_DAMAGED',
    ({ footer }) =>
      put(footer, FOOTER.pageMapRuns, Number(footer.readBigUInt64LE(FOOTER.pageMapRuns[0])) + 1),
  ],
  'other class counts': ['IMAGE_DAMAGED', ({ footer }) => put(footer, [FOOTER.classCounts[0] + 8, 8], 0)],
  'chunks that overlap': [
    'IMAGE_DAMAGED',
    ({ chunks, regions: { chunkTable: table } }) => {
      // putTogether numbers the offsets, so the spans lie instead.
      put(table, [8, 4], first(chunks).length + pageBytes);
    },
  ],
  'a span of no bytes': ['IMAGE_DAMAGED', ({ regions: { chunkTable: table } }) => put(table, [8, 4], 0)],
  'a page map block that claims 2 GiB': [
    'IMAGE_DAMAGED',
    ({ regions: { pageMap: map } }) => put(map, MAP_BLOCK.rawSize, 0x7fff_fff0),
  ],
  'a page map block that is not LZ4': ['IMAGE_DAMAGED', ({ regions: { pageMap: map } }) => map.fill(0xff, 8)],
  'chunks exchanged': [
    'IMAGE_DAMAGED',
    ({ chunks, regions: { chunkTable: table } }) => {
      chunks.reverse();
      const entry = Buffer.from(table.subarray(0, 32));
      table.copyWithin(0, 32);
      entry.copy(table, 32);
    },
  ],
  'a chunk with a tag': ['IMAGE_DAMAGED', ({ chunks }) => put(first(chunks), [CHUNK_HEADER.tag[0], 4], 7)],
  'a chunk of an unknown kind': [
    'IMAGE_INCOMPATIBLE',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.kind, 3),
  ],
  'a chunk of an unknown codec': [
    'IMAGE_INCOMPATIBLE',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.codec, 2),
  ],
  'a chunk of another codec than its blocks': [
    'IMAGE_DAMAGED',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.codec, 0),
  ],
  'a parent flag without a parent': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.mustUnderstand, 1n)],
  'a parent without its flag': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.sequence, 1)],
  'a map of changes without a parent': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, FOOTER.mapKind, 2),
  ],
  'another kind of map': ['IMAGE_DAMAGED', () => (footer: Buffer) => put(footer, FOOTER.mapKind, 7)],
  'a ninth class': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, [FOOTER.classCounts[0] + 64, 8], 1),
  ],
  'page hashes that are not there': ['IMAGE_DAMAGED', ({ header }) => put(header, HEADER.mayIgnore, 1n)],
  'a content root without page hashes': [
    'IMAGE_DAMAGED',
    () => (footer: Buffer) => put(footer, [FOOTER.contentRoot[0], 4], 1),
  ],
  'a chunk of 65535 pages': ['IMAGE_DAMAGED', ({ chunks }) => put(first(chunks), CHUNK_HEADER.pages, 65535)],
  'a chunk of 65535 bodies': [
    'IMAGE_DAMAGED',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.bodies, 65535),
  ],
  'a chunk with more runs than pages': [
    'IMAGE_DAMAGED',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.runs, 65535),
  ],
  'a payload of 4 GiB': [
    'IMAGE_DAMAGED',
    ({ chunks }) => put(first(chunks), CHUNK_HEADER.payloadSize, 0xffff_ffff),
  ],
  'a payload that is not LZ4': ['IMAGE_DAMAGED', ({ chunks }) => first(chunks).fill(0xee, 64, 300)],
  'dirt in the padding': ['IMAGE_DAMAGED', ({ chunks }) => first(chunks).fill(1, first(chunks).length - 1)],
};

for (const [what, [code, change]] of Object.entries(changes))
  test(`${what}: refused though every checksum is right`, async () => {
    const parts = takeApart(whole);
    const late = change(parts);
    await refused(
      putTogether(parts, typeof late === 'function' ? (late as (footer: Buffer) => void) : undefined),
      code,
    );
  });

/** The map's runs, changed and coded again. */
function withRuns(change: (runs: Buffer) => void, parts = takeApart(whole)): Buffer {
  const raw = parts.regions.pageMap.readUInt32LE(4);
  const runs = Buffer.alloc(raw);
  const word = parts.regions.pageMap.readUInt32LE(0);
  if (word >= 0x8000_0000) parts.regions.pageMap.copy(runs, 0, 8);
  else lz4Decompress(parts.regions.pageMap.subarray(8, 8 + word), raw).copy(runs);
  change(runs);
  const coded = lz4Compress(runs, runs.length - 1) ?? assert.fail('not compressible');
  const head = Buffer.alloc(8);
  head.writeUInt32LE(coded.length, 0);
  head.writeUInt32LE(runs.length, 4);
  parts.regions.pageMap = Buffer.concat([head, coded]);
  return putTogether(parts);
}

for (const [what, field, value] of [
  ['seeks a page in another slot', MAP_RUN.slot, 9],
  ['seeks a page in a chunk that is not there', MAP_RUN.chunk, 2],
  ['seeks a page in another chunk', MAP_RUN.chunk, 1],
  ['has a longer run', MAP_RUN.count, 301],
  ['has an empty run', MAP_RUN.count, 0],
  ['has a class that does not fit', MAP_RUN.pageClass, 3],
  ['has an absent page', MAP_RUN.pageClass, 0],
] as const)
  test(`a page map that ${what}: refused though every checksum is right`, async () => {
    await refused(
      withRuns((runs) => put(runs, field, value)),
      'IMAGE_DAMAGED',
    );
  });

test('a page that the map places over another is named with chunk and pfns', async () => {
  // The first run (pfns 0 to 7) and the one at pfn 10 change places: all counts stay as they are.
  writeFileSync(
    path,
    withRuns((runs) => {
      put(runs, MAP_RUN.slot, 10);
      put(runs, MAP_RUN.slot, 0, 3 * MAP_RUN_SIZE);
    }),
  );
  assert.deepEqual(await outcome(), { code: 'IMAGE_DAMAGED', chunk: 0 });
  const { findings } = await verifyImage(path);
  assert.equal(findings[0]?.chunk, 0);
  assert.deepEqual(findings[0].pfns?.[0], [0, 8]);
});

test('reader and verifier, which share no code, agree on random damage under right checksums', async (t) => {
  const seed = Date.now() % 1_000_000;
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  const sound = { whole: 0, damaged: 0 };
  for (let round = 0; round < 700; round++) {
    const parts = takeApart(whole);
    const region =
      [parts.header, parts.regions.chunkTable, parts.regions.pageMap, parts.footer, ...parts.chunks][
        next(6)
      ] ?? parts.regions.pageMap;
    for (let changes = 1 + next(3); changes > 0; changes--) {
      // Mostly in the tables and headers, where structure is, not in the middle of a payload.
      const near = next(4) === 0 ? next(region.length) : next(Math.min(region.length, 140));
      region.writeUInt8(next(3) === 0 ? next(256) : next(6), next(2) ? near : region.length - 1 - near);
    }
    writeFileSync(
      path,
      putTogether(parts, next(2) ? undefined : (footer) => footer.writeUInt8(next(256), next(248))),
    );
    const { code } = await outcome();
    const judged = await verifyImage(path).then(
      ({ findings }) => ({ code: findings.length > 0 ? 'IMAGE_DAMAGED' : 'whole', what: findings[0]?.what }),
      (thrown: unknown) => ({ code: asDormouseError(thrown).code, what: String(thrown) }),
    );
    // Which of two things wrong is met first is the one's own business.
    const both = [code, judged.code].sort().join();
    if (both !== 'IMAGE_DAMAGED,IMAGE_INCOMPATIBLE')
      assert.equal(code, judged.code, `seed ${seed}, round ${round}: ${judged.what}`);
    sound[code === 'whole' ? 'whole' : 'damaged']++;
  }
  assert.ok(sound.whole > 10 && sound.damaged > 100, JSON.stringify(sound));
});

test('a newer minor version is read, whatever it has where this one has nothing', async () => {
  const parts = takeApart(whole);
  put(parts.header, HEADER.minor, 7);
  put(parts.header, HEADER.mayIgnore, 1n << 40n);
  put(parts.header, [HEADER.reserved3[0], 4], 9);
  for (const chunk of parts.chunks) chunk.fill(0x55, CHUNK_HEADER.salt[0], CHUNK_HEADER_SIZE);
  put(parts.regions.chunkTable, CHUNK_ENTRY.reserved, 3);
  const runs = parts.regions.pageMap.readUInt32LE(4) / MAP_RUN_SIZE;
  const newer = withRuns((map) => {
    for (let run = 0; run < runs; run++) put(map, MAP_RUN.reserved, 1 + run, run * MAP_RUN_SIZE);
  }, parts);
  const rest = takeApart(newer);
  writeFileSync(
    path,
    putTogether(rest, (footer) => {
      put(footer, FOOTER.minor, 7);
      put(footer, [FOOTER.reserved1[0] + 100, 4], 5);
      put(footer, [FOOTER.classCounts[0] + 8 * 15, 8], 1);
    }),
  );
  assert.equal((await outcome()).code, 'whole');
  assert.deepEqual((await verifyImage(path)).findings, []);
  assert.deepEqual((await inspectImage(path)).damage, []);
  put(rest.header, HEADER.mustUnderstand, 1n << 40n);
  await refused(
    putTogether(rest, (footer) => put(footer, FOOTER.minor, 7)),
    'IMAGE_INCOMPATIBLE',
  );
});

test('damage of one chunk is named with chunk, offset and pfns, and the rest is still judged', async () => {
  const image = Buffer.from(whole);
  const second = first(takeApart(whole).chunks).length + pageBytes;
  for (const at of [pageBytes + 100, second + 100]) image.writeUInt8(image.readUInt8(at) ^ 1, at);
  writeFileSync(path, image);
  await assert.rejects(
    ImageReader.open(path, { lanes: 1 }).then((r) => {
      try {
        r.checkChunk(0, 1);
      } finally {
        r.close();
      }
    }),
    (thrown: unknown) => {
      const error = asDormouseError(thrown);
      assert.equal(error.code, 'IMAGE_DAMAGED');
      assert.equal(error.place.chunk, 1);
      assert.equal(error.place.offset, second);
      assert.match(error.message, /chunk 1 at offset \d+ \(pfns \d+-\d+/);
      return true;
    },
  );
  const { findings } = await verifyImage(path);
  assert.deepEqual(
    findings.map(({ chunk, offset }) => ({ chunk, offset })),
    [
      { chunk: 0, offset: pageBytes },
      { chunk: 1, offset: second },
    ],
  );
  const lost = findings.flatMap((finding) => finding.pfns ?? []);
  assert.equal(lost[0]?.[0], 0);
});

test('inspect goes on through damage', async () => {
  writeFileSync(path, whole);
  const sound = await inspectImage(path);
  assert.deepEqual(sound.damage, []);
  assert.deepEqual(sound.counts, countPages(pages));
  assert.deepEqual(sound.chunks, { count: 2, byCodec: { lz4: 2 }, ofDeltas: 0 });
  assert.equal(sound.manifest?.domain.name, 'guest');
  truncateSync(path, whole.length - pageBytes);
  const cut = await inspectImage(path);
  assert.equal(cut.committed, false);
  assert.equal(cut.header?.imageId, sound.header?.imageId);
  // Pages without a body are in the map alone.
  assert.deepEqual(cut.counts, { ...sound.counts, zero: 0 });
  assert.equal(cut.storedPages, 270);
  assert.deepEqual(cut.chunks, sound.chunks);
  const headless = Buffer.from(whole);
  headless.fill(0, 0, pageBytes);
  writeFileSync(path, headless);
  const torso = await inspectImage(path);
  assert.equal(torso.header, null);
  assert.equal(torso.manifest?.domain.name, 'guest');
  assert.ok(torso.damage.length > 0);
});

test('what is not there or not a file is IMAGE_NOT_FOUND', async () => {
  for (const bad of [join(dir, 'nothing'), dir, `${path}/x`])
    await assert.rejects(ImageReader.open(bad, { lanes: 1 }), { code: 'IMAGE_NOT_FOUND' });
});

test('the manifest keeps large numbers, bytes and carried records', () => {
  const stream = {
    records: [{ type: 0x8000_0001, body: Buffer.from([1, 2]) }],
    big: 2n ** 63n - 1n,
    none: null,
  };
  const manifest = manifestFor(4, countPages(pages.slice(0, 4)), { stream });
  assert.deepEqual(decodeManifest(encodeManifest(manifest)), manifest);
});

test('a manifest that is not one is refused quickly', () => {
  const bytes = encodeManifest(manifestFor(4, countPages(pages.slice(0, 4))));
  const array = (length: number) =>
    Buffer.from([0xdd, ...new Uint8Array(new Uint32Array([length]).buffer).reverse()]);
  const bombs: Record<string, Buffer> = {
    'an array of 2^32': array(0xffff_ffff),
    'arrays of 2^25 inside each other': Buffer.concat(Array.from({ length: 5000 }, () => array(1 << 25))),
    'deep nesting': Buffer.alloc(1 << 20, 0x91),
    'text of 4 GiB': Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff]),
    'a float': Buffer.from([0xcb, 0, 0, 0, 0, 0, 0, 0, 0]),
    'an extension': Buffer.from([0xd4, 0x72, 0x40]),
    nothing: Buffer.alloc(0),
    'bytes too many': Buffer.concat([bytes, Buffer.from([0xc0])]),
    'too few': bytes.subarray(0, -1),
    'a key missing': encodeWithout(bytes, 'geometry'),
  };
  for (const [what, bomb] of Object.entries(bombs)) {
    const began = process.cpuUsage();
    assert.throws(() => decodeManifest(bomb), { code: 'IMAGE_DAMAGED' }, what);
    assert.ok(process.cpuUsage(began).user < 1_000_000, what);
  }
  const next = random(5);
  for (let i = 0; i < 3000; i++) {
    const copy = Buffer.from(bytes);
    for (let flips = 1 + next(3); flips > 0; flips--) copy[next(copy.length)] = next(256);
    try {
      decodeManifest(copy);
    } catch (thrown) {
      assert.equal(asDormouseError(thrown).code, 'IMAGE_DAMAGED');
    }
  }
});

test('a manifest of more values than a domain needs is refused, not decoded', () => {
  const bombs = { maps: bombOf(36_000_000, 0x80), numbers: bombOf((64 << 20) - 5, 1) };
  for (const [what, bomb] of Object.entries(bombs)) {
    const rss = process.memoryUsage().rss;
    assert.throws(() => decodeManifest(bomb), { code: 'IMAGE_DAMAGED', message: /too many values/ }, what);
    assert.ok(process.memoryUsage().rss - rss < 256 << 20, what);
  }
});

/** An array of that many values of one byte. */
function bombOf(values: number, marker: number): Buffer {
  const bomb = Buffer.alloc(5 + values, marker);
  bomb.writeUInt8(0xdd, 0);
  bomb.writeUInt32BE(values, 1);
  return bomb;
}

/** Renames a key, so that it is missing. */
function encodeWithout(bytes: Buffer, key: string): Buffer {
  const copy = Buffer.from(bytes);
  copy.write('x', copy.indexOf(key));
  return copy;
}

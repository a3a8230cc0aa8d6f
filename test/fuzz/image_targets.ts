/** What is in an image: its first and last page, its tables, its chunks, and all of it as one file. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { generateKeyPairSync, sign } from 'node:crypto';
import { asDormouseError } from '../../src/errors.js';
import { decodeAncestors, encodeAncestors } from '../../src/image/ancestors.js';
import { ANCESTOR_SIZE, FOOTER, HEADER, MAP_BLOCK_SIZE, type Field } from '../../src/image/format.js';
import {
  decodeFooter,
  decodeHeader,
  encodeFooter,
  encodeHeader,
  sealFooter,
  storedHash,
} from '../../src/image/frame.js';
import { decodeManifest, encodeManifest } from '../../src/image/manifest.js';
import { parseAncestors, parseChunk, parsePageMap } from '../../src/image/parse.js';
import { signedMessage, type Signer } from '../../src/image/signature.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { nativePageStream } from '../../src/xenstream/frames/native.js';
import { manifestFor } from '../support/images.js';
import { imageFileTarget, seedImages } from './image_file_target.js';
import type { Target } from './target.js';

const nrPfns = 24;
const id = 'ab'.repeat(16);

/** A page whose checksum is right again, mostly: behind it lies what is to be fuzzed. */
function resealed(input: Buffer, [offset, size]: Field): Buffer {
  const bytes = Buffer.alloc(Math.max(input.length, offset + size));
  input.copy(bytes);
  if (((input[0] ?? 0) ^ input.length) % 8 !== 7)
    bytes.write(storedHash(bytes.subarray(0, offset)), offset, 'hex');
  return bytes;
}

function takeHeader(input: Buffer): void {
  const { major, minor, ...header } = decodeHeader(resealed(input, HEADER.checksum));
  assert.equal(major, 1);
  assert.ok(minor >= 0);
  const again = decodeHeader(encodeHeader(header));
  assert.deepEqual(again, { ...header, major: 1, minor: 0 });
}

function takeFooter(input: Buffer): void {
  const { minor, root, signer, ...footer } = decodeFooter(resealed(input, FOOTER.checksum));
  assert.ok(minor >= 0);
  const again = decodeFooter(sealFooter(encodeFooter(footer), root, signer));
  assert.deepEqual(again, { ...footer, root, signer, minor: 0 });
}

function signed(root: string): Signer {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const key = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  return { key, signature: sign(null, signedMessage(Buffer.from(root, 'hex')), privateKey) };
}

async function footers(): Promise<Buffer[]> {
  return (await seedImages()).flatMap(({ bytes }) => {
    const page = bytes.subarray(-pageBytes);
    const { root } = decodeFooter(page);
    return [page, sealFooter(page, root, signed(root))];
  });
}

function takeManifest(input: Buffer): void {
  const manifest = decodeManifest(input);
  assert.deepEqual(decodeManifest(encodeManifest(manifest)), manifest);
}

/** The reader's decoder and the verifier's must be of one opinion. */
function takeAncestors(input: Buffer): void {
  const newer = (input.at(-1) ?? 0) % 2 === 1;
  const bytes = input.subarray(0, input.length - (input.length % ANCESTOR_SIZE));
  const judged = parseAncestors(bytes, newer);
  let read;
  try {
    read = decodeAncestors(bytes, newer);
  } catch (thrown) {
    const bearable = typeof judged === 'string' || judged.some(({ sequence }) => sequence === Infinity);
    assert.ok(bearable, 'the verifier takes what the reader refuses');
    throw thrown;
  }
  assert.deepEqual(read, judged);
  assert.deepEqual(decodeAncestors(encodeAncestors(read), newer), read);
}

const descs = new BigUint64Array(1024);
const bodies = Buffer.alloc(256 * pageBytes);

/** The same for a chunk: a stream's frame is decoded as an image's chunk is, in C++. */
async function takeChunk(input: Buffer): Promise<void> {
  const bytes = Buffer.alloc(Math.ceil(Math.max(1, input.length) / pageBytes) * pageBytes);
  input.copy(bytes);
  const pages: Buffer[] = [];
  const judged = parseChunk(bytes, false, (_, block) => pages.push(Buffer.from(block)));
  let counts: [number, number];
  try {
    counts = await nativePageStream().decodeFrame(bytes, bytes.length, false, 2 ** 32, descs, bodies);
  } catch (thrown) {
    const isWhole =
      typeof judged !== 'string' &&
      judged.head.plain &&
      judged.runs.every(({ first, count }) => first + count <= 2 ** 32);
    assert.ok(!isWhole, `the verifier takes what the reader refuses: ${String(thrown)}`);
    throw asDormouseError(thrown);
  }
  assert.ok(typeof judged !== 'string', 'the reader takes what the verifier refuses');
  assert.deepEqual([judged.head.pages, judged.head.bodies], counts);
  assert.ok(Buffer.concat(pages).equals(bodies.subarray(0, counts[1] * pageBytes)), 'other bodies');
  for (const { first, count, pageClass, type, slot } of judged.runs)
    for (let i = 0; i < count; i++)
      assert.equal(
        descs[slot + i],
        BigInt(first + i) | (BigInt(pageClass) << 56n) | (BigInt(type) << 60n),
        'another page',
      );
}

/** What is understood covers every page once and leads to chunks that are there. Limits come from the first bytes. */
function takeMap(input: Buffer): void {
  const [a = 0, b = 0, c = 0] = input;
  const map = input.subarray(3);
  const limits = { nrRuns: a % 16, nrPfns: b, nrChunks: c % 4, sources: 1 + ((c >> 2) % 3) };
  const runs = parsePageMap(map, { ...limits, sparse: (c & 16) !== 0, newer: (c & 32) !== 0 });
  if (typeof runs === 'string') return;
  assert.equal(runs.length, limits.nrRuns);
  let next = 0;
  const perChunk = new Map<string, number>();
  for (let run = 0; run < runs.length; run++) {
    assert.equal(runs.first[run], next);
    next += runs.count(run);
    if (!runs.hasBody(run)) continue;
    const place = `${runs.source[run] ?? 0} ${runs.chunk[run] ?? 0}`;
    perChunk.set(place, (perChunk.get(place) ?? 0) + 1);
  }
  assert.equal(next, limits.nrPfns);
  for (const [place, count] of perChunk) {
    const [source = 0, chunk = 0] = place.split(' ').map(Number);
    assert.equal([...runs.ofChunk(source, chunk)].length, count, 'a run is not found by its chunk');
  }
}

/** Three numbers of limits and a map that fits them. */
function mapSeed(bytes: Buffer, nrRuns: number): Buffer {
  return Buffer.concat([Buffer.from([nrRuns, nrPfns, 1 | 4 | 16]), bytes]);
}

const counts = { data: 9, zero: 2, table: 3, noFrame: 4, broken: 5, alloc: 1, sameAsParent: 0 };

export const imageTargets: Readonly<Record<string, Target>> = {
  'image-header': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: () => [
      encodeHeader({
        ...{ imageId: id, chainId: id, sequence: 0, nrPfns, consistency: 'suspend-point' },
        ...{ parent: null, hasPageHashes: true, hasDeltas: false, hasChunkDigests: true },
      }),
      encodeHeader({
        ...{ imageId: id, chainId: '01'.repeat(16), sequence: 1, nrPfns, consistency: 'paused' },
        ...{
          parent: { imageId: '01'.repeat(16), root: id + id },
          hasPageHashes: true,
          hasDeltas: true,
          hasChunkDigests: true,
        },
      }),
    ],
    run: takeHeader,
  },
  'image-footer': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: footers,
    run: takeFooter,
  },
  manifest: {
    codes: ['IMAGE_DAMAGED'],
    seeds: () => [
      encodeManifest(manifestFor(nrPfns, counts)),
      ...['80', 'dfffffffff', '81a16181a162ff'].map((hex) => Buffer.from(hex, 'hex')),
    ],
    run: takeManifest,
  },
  ancestors: {
    codes: ['IMAGE_DAMAGED'],
    seeds: () => [
      encodeAncestors([{ imageId: id, root: id + id, sequence: 1, name: 'a.dormouse' }]),
      Buffer.concat([
        encodeAncestors([
          { imageId: id, root: id + id, sequence: 2, name: 'b' },
          { imageId: id, root: id + id, sequence: 0, name: 'é'.repeat(128) },
        ]),
        Buffer.from([1]),
      ]),
    ],
    run: takeAncestors,
  },
  'verified-chunk': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: async () => (await seedImages()).flatMap(({ parts }) => parts.chunks),
    run: takeChunk,
  },
  'verified-map': {
    codes: [],
    seeds: async () =>
      (await seedImages()).map(({ parts: { regions } }) =>
        mapSeed(regions.pageMap, regions.pageMap.readUInt32LE(MAP_BLOCK_SIZE - 4) / 16),
      ),
    run: takeMap,
  },
  'image-file': imageFileTarget,
};

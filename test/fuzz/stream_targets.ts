/** Streams of Xen's and of ours. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { readFrames } from '../../src/xenstream/frames/reader.js';
import { STREAM_HEAD_SIZE } from '../../src/xenstream/frames/layout.js';
import { parseLibxcStream, parseStream } from '../../src/xenstream/stream_parser.js';
import { readStreamManifest } from '../../src/xenstream/stream_manifest.js';
import { Survey } from '../../src/xenstream/survey.js';
import { decodeManifest, encodeManifest } from '../../src/image/manifest.js';
import { manifestFor } from '../support/images.js';
import { ownStream, resealed, sparseStream } from '../support/own_stream.js';
import { BufferSource } from '../support/stream_bytes.js';
import { fileOf, hvmParts, pvParts, type Part } from '../support/xen_stream.js';
import { Rewriter } from './stream_rewriter.js';
import type { Target } from './target.js';

const nrPfns = 24;
const limits = { maxPfns: 2 ** 20, maxStateBytes: 1 << 20 };

/** Mostly with checksums that are right: behind them lies what is to be fuzzed. */
const mostlyResealed = (input: Buffer): Buffer =>
  input.length < STREAM_HEAD_SIZE || input.length % 16 === 15 ? input : resealed(input);

/** What came is what the last frame counted, and all of it is the guest's. */
async function takeFrames(input: Buffer): Promise<void> {
  const seen: string[] = [];
  let most = 0;
  const classes = new Map<number, number>();
  await readFrames(new BufferSource(mostlyResealed(input)), {
    begin: (begin) => {
      seen.push('begin');
      most = begin.nrPfns;
    },
    pages: (descs, bodies) => {
      let withBody = 0;
      for (const word of descs) {
        const [pfn, pageClass] = [Number(word & 0xf_ffff_ffff_ffffn), Number((word >> 56n) & 15n)];
        assert.ok(pfn < most, 'a page beyond the guest');
        withBody += pageClass === 1 || pageClass === 3 ? 1 : 0;
        classes.set(pfn, pageClass);
      }
      assert.equal(bodies.length, 4096 * withBody, 'bodies and pages differ');
    },
    end: ({ pages }) => {
      seen.push('end');
      assert.equal(classes.size, most, 'a page never came');
      assert.equal([...classes.values()].filter((one) => one === 1).length, pages.data);
    },
  });
  assert.deepEqual(seen, ['begin', 'end']);
}

/** What was understood gives the same bytes when it is written again, and fits a manifest. */
async function takeXlFile(input: Buffer): Promise<void> {
  const [rewriter, survey] = [new Rewriter(), new Survey()];
  const source = new BufferSource(input);
  await parseStream(source, rewriter.beside(survey), limits);
  assert.ok(rewriter.bytes().equals(input), 'other bytes than were read');
  survey.checkProportion(source.offset);
  const made = survey.streamManifest();
  const counts = { data: nrPfns, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 };
  const manifest = decodeManifest(encodeManifest(manifestFor(nrPfns, counts, { stream: made })));
  assert.deepEqual(readStreamManifest(manifest.stream), made);
}

const small = {
  batches: [
    [
      { pfn: 0, type: 0, body: Buffer.alloc(4096, 7) },
      { pfn: 1, type: 0xf },
    ],
  ],
};
const libxcOf = (parts: readonly Part[]): Buffer => {
  const from = parts.findIndex(({ name }) => name === 'libxc');
  const end = parts.findIndex(({ name }) => name === 'end');
  return fileOf(parts.slice(from, end + 1));
};
const files = (): readonly (readonly Part[])[] => [
  pvParts(),
  pvParts({ ...small, width: 4, vcpus: [], version: 2 }),
  hvmParts(small),
  hvmParts({ ...small, kind: 'pvh', version: 2, policies: false }),
  hvmParts({ kind: 'hvm' }),
];

export const streamTargets: Readonly<Record<string, Target>> = {
  frames: {
    codes: ['STREAM_INVALID', 'STREAM_UNSUPPORTED'],
    seeds: async () => [
      await ownStream(nrPfns),
      await ownStream(2),
      await sparseStream(2 ** 32, [2 ** 14, 2 ** 12]),
      await sparseStream(2 ** 32, [2 ** 31 + 5, 2 ** 31 + 10]),
    ],
    run: takeFrames,
  },
  'xl-file': {
    codes: ['STREAM_INVALID', 'STREAM_UNSUPPORTED'],
    seeds: () => files().map(fileOf),
    run: takeXlFile,
  },
  'libxc-stream': {
    codes: ['STREAM_INVALID', 'STREAM_UNSUPPORTED'],
    seeds: () => files().map(libxcOf),
    run: async (input) => {
      const [rewriter, source] = [new Rewriter(), new BufferSource(input)];
      await parseLibxcStream(source, rewriter, limits);
      assert.ok(rewriter.bytes().equals(input.subarray(0, source.offset)), 'other bytes than were read');
    },
  },
};

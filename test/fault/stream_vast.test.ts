/** Streams of ours that list few pages of a guest that they call vast. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFrames } from '../../src/xenstream/frames/reader.js';
import { sparseStream } from '../support/own_stream.js';
import { BufferSource } from '../support/stream_bytes.js';

const nothing = { begin: () => undefined, pages: () => undefined, end: () => undefined };
const read = async (pfns: readonly number[]): Promise<void> =>
  readFrames(new BufferSource(await sparseStream(2 ** 32, pfns)), nothing);

test('pages far beyond those that were listed are refused before they cost memory', async () => {
  for (const pfns of [
    [2 ** 31 + 5, 2 ** 31 + 10],
    [2 ** 32 - 1, 0],
    [5, 2 ** 27],
  ])
    await assert.rejects(read(pfns), { code: 'STREAM_INVALID', message: /^page \d+ after [12] pages/ });
});

test('pages that come somewhat out of order are not', async () => {
  await assert.rejects(read([2 ** 25, 1, 0]), { code: 'STREAM_INVALID', message: /^page 2 never came/ });
});

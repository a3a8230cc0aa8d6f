/** Pages that come over a stream again and again, several chunks placed at a time: each ends as it came last. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { descriptor, pageBytes } from '../../src/pfn/page_words.js';
import { DomainFiller } from '../../src/transfer/domain_filler.js';
import { steps } from '../../src/worker/steps.js';
import { helperTarget } from '../support/helper_target.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { random } from '../support/images.js';

const nrPfns = 2048;
const [data, zero] = [1, 2];
const mostBodies = 256;

interface Chunk {
  readonly descs: BigUint64Array;
  readonly bodies: Buffer;
}

/** Pages from `first` on, many or few, so that chunks take longer and shorter; each body says which page it is, and of which chunk. */
function chunkOf(number: number, first: number, next: (below: number) => number): Chunk {
  const count = Math.min(1 + next(next(2) === 0 ? 300 : 4), nrPfns - first);
  const descs: bigint[] = [];
  const bodies: Buffer[] = [];
  // Now and then a page comes twice in one chunk.
  for (let pfn = first; pfn < first + count && bodies.length < mostBodies; pfn += next(8) === 0 ? 0 : 1) {
    const isZero = next(4) === 0;
    descs.push(descriptor(pfn, isZero ? zero : data, 0));
    if (!isZero) bodies.push(Buffer.alloc(pageBytes, Buffer.from(`${number}:${pfn}:${descs.length} `)));
  }
  return { descs: BigUint64Array.from(descs), bodies: Buffer.concat(bodies) };
}

async function receive(host: EmbeddedHost, chunks: readonly Chunk[]): Promise<void> {
  const { lease, builder } = await host.build(guestSpec('received'));
  const filler = new DomainFiller(helperTarget(builder, nrPfns));
  await filler.begin({ guestWidth: 8, nrPfns: 1 });
  const expected = new Map<bigint, Buffer>();
  const placing: Promise<void>[] = [];
  for (const { descs, bodies } of chunks) {
    let at = 0;
    for (const word of descs) {
      const isZero = Number((word >> 56n) & 15n) === zero;
      expected.set(
        word & ((1n << 52n) - 1n),
        isZero ? Buffer.alloc(pageBytes) : bodies.subarray(at, at + pageBytes),
      );
      at += isZero ? 0 : pageBytes;
    }
    placing.push((await filler.place(descs, bodies)).done);
  }
  await Promise.all(placing);
  const memory = await builder.openMemory();
  for (const [pfn, page] of expected)
    assert.ok(steps().readPages(memory.handle, BigUint64Array.of(pfn)).equals(page), `page ${pfn}`);
  memory.close();
  await filler.close();
  await lease.release();
}

test('of a page that comes in many chunks the last one counts', async (t) => {
  const host = await startTestHost(t, { memoryMib: 64 });
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.integer({ min: 1, max: 200 }), async (seed, count) => {
      const next = random(seed);
      const spread = 1 + next(300);
      await receive(
        host,
        Array.from({ length: count }, (_, number) => chunkOf(number, next(spread), next)),
      );
    }),
    { numRuns: 15 },
  );
});

/** A stream of ours that is damaged anywhere, cut short, or made of nonsense is refused, whatever it says. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, test } from 'node:test';
import { DormouseError } from '../../src/errors.js';
import { storedHash } from '../../src/image/frame.js';
import type { Manifest } from '../../src/image/manifest.js';
import { FRAME_HEAD, FRAME_HEAD_SIZE, STREAM_HEAD_SIZE } from '../../src/xenstream/frames/layout.js';
import type { StreamBegin } from '../../src/xenstream/frames/messages.js';
import { readFrames } from '../../src/xenstream/frames/reader.js';
import { StreamWriter } from '../../src/xenstream/frames/writer.js';
import { desc, page, random, type TestPage } from '../support/images.js';
import { BufferSource, writtenBy } from '../support/stream_bytes.js';

const nrPfns = 24;
const blob = Buffer.from('policy');

function manifest(counts: Manifest['pages']): Manifest {
  const none = Buffer.alloc(0);
  return {
    tool: 'test',
    createdAt: '2026-01-01T00:00:00.000Z',
    consistency: 'suspend-point',
    hostKind: 'embedded',
    domain: {
      ...{ name: 'g', uuid: 'e0b2e137-4b52-4e26-9d7a-ea3199174901', type: 'pv', vcpus: 1 },
      ...{ maxMemoryKib: 4 * nrPfns, config: '' },
    },
    geometry: { nrPfns, guestWidth: 8, p2mFrames: [3], p2mGeneration: 0 },
    state: {
      ...{ vcpus: [], sharedInfo: none, tscInfo: none, cpuidPolicy: blob, msrPolicy: blob },
      ...{ hvmContext: none, hvmParams: none },
    },
    pages: counts,
    timings: { pauseUs: 0, elapsedUs: 0 },
  };
}

const begin: StreamBegin = {
  tool: 'test',
  type: 'pv',
  guestWidth: 8,
  nrPfns,
  cpuidPolicy: blob,
  msrPolicy: blob,
};

function put(stream: StreamWriter, pages: readonly TestPage[]): void {
  const bodies = pages.flatMap(({ body }) => body ?? []);
  stream.append(0, BigUint64Array.from(pages, desc), Buffer.concat(bodies));
}

/** Every pfn, and the first of them again. */
function small(seed: number): Promise<{ bytes: Buffer; pages: Map<number, TestPage> }> {
  const next = random(seed);
  const pages = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next));
  const again = pages.slice(0, 4).map(({ pfn }) => page(pfn, next));
  const last = new Map([...pages, ...again].map((one) => [one.pfn, one]));
  return writtenBy(async (fd) => {
    const stream = StreamWriter.create(fd, { format: 'frames', nrPfns, lanes: 1 });
    await stream.begin(begin);
    put(stream, pages);
    put(stream, again);
    await stream.end(manifest(stream.counts()));
    stream.release();
  }).then((bytes) => ({ bytes, pages: last }));
}

async function contents(bytes: Buffer): Promise<Map<number, Buffer | null>> {
  const held = new Map<number, Buffer | null>();
  let ended = false;
  await readFrames(new BufferSource(bytes), {
    begin: () => undefined,
    pages: (descs, bodies) => {
      let at = 0;
      for (const one of descs) {
        const pageClass = Number((one >> 56n) & 0xfn);
        const hasBody = pageClass === 1 || pageClass === 3;
        const pfn = Number(one & ((1n << 52n) - 1n));
        held.set(pfn, hasBody ? Buffer.from(bodies.subarray(at, at + 4096)) : null);
        at += hasBody ? 4096 : 0;
      }
    },
    end: () => {
      ended = true;
    },
  });
  assert.ok(ended);
  return held;
}

async function refused(bytes: Buffer, what: string): Promise<void> {
  await assert.rejects(contents(bytes), (error: unknown) => {
    assert.ok(error instanceof DormouseError, `${what}: ${String(error)}`);
    assert.match(error.code, /^STREAM_(INVALID|UNSUPPORTED)$/, what);
    assert.equal(typeof error.place.offset, 'number', what);
    return true;
  });
}

/** Where each frame of a good stream begins. */
function frames(bytes: Buffer): number[] {
  const starts: number[] = [];
  for (let at = STREAM_HEAD_SIZE; at < bytes.length;) {
    starts.push(at);
    at += FRAME_HEAD_SIZE + bytes.readUInt32LE(at + FRAME_HEAD.bodySize[0]);
  }
  return starts;
}

/** Makes the checksums of the frame at `at` right again, whatever its body holds now. */
function seal(bytes: Buffer, at: number): void {
  const size = bytes.readUInt32LE(at + FRAME_HEAD.bodySize[0]);
  const body = bytes.subarray(at + FRAME_HEAD_SIZE, at + FRAME_HEAD_SIZE + size);
  bytes.write(storedHash(body), at + FRAME_HEAD.bodyHash[0], 'hex');
  const id = bytes.subarray(24, 40);
  const hashed = Buffer.concat([bytes.subarray(at, at + FRAME_HEAD.headHash[0]), id]);
  bytes.write(storedHash(hashed), at + FRAME_HEAD.headHash[0], 'hex');
}

describe('damaged streams', () => {
  test('a good one is read; of a page that comes twice the last counts', async () => {
    for (const seed of [1, 2, 3]) {
      const { bytes, pages } = await small(seed);
      const held = await contents(bytes);
      for (const [pfn, { body }] of pages) assert.deepEqual(held.get(pfn), body, `pfn ${pfn}`);
      assert.equal(held.size, nrPfns);
    }
  });

  test('every byte flipped', { timeout: 120_000 }, async () => {
    const { bytes } = await small(4);
    for (let at = 0; at < bytes.length; ++at) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
      await refused(damaged, `byte ${at} of ${bytes.length}`);
    }
  });

  test('every truncation', { timeout: 120_000 }, async () => {
    const { bytes } = await small(5);
    for (let length = 0; length < bytes.length; ++length)
      await refused(bytes.subarray(0, length), `${length} of ${bytes.length} bytes`);
  });

  test('a frame left out, doubled, moved, or of another stream', async () => {
    const [{ bytes }, { bytes: other }] = [await small(6), await small(6)];
    const starts = [...frames(bytes), bytes.length];
    const pieces = starts.slice(0, -1).map((start, i) => bytes.subarray(start, starts[i + 1]));
    const head = bytes.subarray(0, STREAM_HEAD_SIZE);
    const join = (list: readonly Buffer[]): Buffer => Buffer.concat([head, ...list]);
    for (let i = 0; i < pieces.length; ++i) {
      await refused(join(pieces.filter((_, at) => at !== i)), `without frame ${i}`);
      await refused(
        join(pieces.flatMap((piece, at) => (at === i ? [piece, piece] : [piece]))).subarray(
          0,
          i === pieces.length - 1 ? bytes.length - 1 : undefined,
        ),
        `frame ${i} twice`,
      );
      const strange = pieces.map((piece, at) =>
        at === i ? other.subarray(starts[i], starts[i + 1]) : piece,
      );
      await refused(join(strange), `frame ${i} of another stream`);
    }
    const [first = head, second = head, third = head, ...rest] = pieces;
    await refused(join([first, third, second, ...rest]), 'two frames changed places');
  });

  test('a hostile sender: bodies of any content with right checksums', { timeout: 120_000 }, async () => {
    const { bytes } = await small(7);
    const starts = frames(bytes);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(starts.length - 1),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (which, changes) => {
          const damaged = Buffer.from(bytes);
          const at = starts[which] ?? 0;
          const size = damaged.readUInt32LE(at + FRAME_HEAD.bodySize[0]);
          for (const [where, value] of changes) damaged[at + FRAME_HEAD_SIZE + (where % size)] = value;
          seal(damaged, at);
          // What it then says may be a guest, if another one; anything else is refused with its place.
          await contents(damaged).catch((thrown: unknown) => {
            assert.ok(thrown instanceof DormouseError, String(thrown));
            assert.match(thrown.code, /^STREAM_(INVALID|UNSUPPORTED)$/);
          });
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('a page that was never put is not left out in silence', async () => {
    await writtenBy(async (fd) => {
      const stream = StreamWriter.create(fd, { format: 'frames', nrPfns, lanes: 1 });
      await stream.begin(begin);
      const next = random(8);
      put(
        stream,
        Array.from({ length: nrPfns - 1 }, (_, pfn) => page(pfn, next)),
      );
      await assert.rejects(stream.end(manifest(stream.counts())), {
        code: 'ACCOUNTING_MISMATCH',
        place: { pfn: nrPfns - 1 },
      });
      stream.release();
    });
  });
});

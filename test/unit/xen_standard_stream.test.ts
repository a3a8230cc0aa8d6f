/** Images that were not made of a Xen file, written as stock Xen would have saved the domain. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DormouseError } from '../../src/errors.js';
import { compareXenFiles } from '../../src/convert/compare.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import type { Manifest } from '../../src/image/manifest.js';
import { ImageReader } from '../../src/image/reader.js';
import { ImageWriter } from '../../src/image/writer.js';
import { noVerifier, verifierComplaint } from '../support/xen_tools.js';
import {
  bodiless,
  dataPage,
  fileOf,
  hvmParts,
  p2mFramesOf,
  pvParts,
  tablePage,
  type Page,
} from '../support/xen_stream.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-standard-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const fresh = (kind: string): string => join(folder, `${++files}.${kind}`);

type Change = (manifest: Manifest) => Manifest;

/** A copy of an image with its manifest changed, and everything else as it was. */
async function rewritten(from: string, change: Change): Promise<string> {
  const reader = await ImageReader.open(from, { lanes: 1 });
  const path = fresh('image');
  const manifest = change(reader.manifest);
  const { consistency, geometry } = manifest;
  const writer = await ImageWriter.create(path, { nrPfns: geometry.nrPfns, lanes: 1, consistency });
  try {
    const numbers = { data: 1, zero: 2, table: 3, noFrame: 4, broken: 5, alloc: 6, sameAsParent: 7 };
    // From the highest pfn down, so that the image's order is not the stream's.
    for (let pfn = reader.nrPfns - 1; pfn >= 0; --pfn) {
      const { pageClass, type } = reader.pageEntry(pfn);
      const desc = BigInt(pfn) | (BigInt(numbers[pageClass]) << 56n) | (BigInt(type) << 60n);
      const body = pageClass === 'data' || pageClass === 'table' ? reader.readPages([pfn]) : Buffer.alloc(0);
      writer.append(0, BigUint64Array.of(desc), body);
    }
    await writer.commit(manifest);
  } finally {
    reader.close();
    await writer.abandon();
  }
  return path;
}

async function imageOf(file: Buffer): Promise<string> {
  const [xl, image] = [fresh('xl'), fresh('image')];
  writeFileSync(xl, file);
  await convertFromXen(xl, image);
  return image;
}

const withoutStream: Change = (manifest) => {
  const { stream, ...rest } = manifest;
  assert.ok(stream !== undefined);
  return rest;
};

/** 2,300 pages of all kinds: two whole batches and a part of one. */
const manyPages: Page[] = Array.from({ length: 2300 }, (_, pfn) => {
  if (pfn % 7 === 3) return bodiless(pfn, 0xf);
  if (pfn % 11 === 5) return tablePage(pfn, [1, 2, 3, 4, 9, 10, 11, 12][pfn % 8] ?? 1, pfn);
  return dataPage(pfn, pfn % 4);
});
const stockBatches = [0, 1024, 2048].map((first) => manyPages.slice(first, first + 1024));

for (const width of [4, 8] as const)
  test(`a PV image of our own, width ${width}, is what xl would have written`, async () => {
    const stock = fileOf(pvParts({ width, vcpus: [0, 1], batches: stockBatches }));
    const image = await rewritten(await imageOf(stock), withoutStream);
    const back = fresh('xl');
    const result = await convertToXen(image, back);
    assert.equal(result.fromStream, false);
    assert.ok(readFileSync(back).equals(stock));
  });

test('a PVH image of our own is what xl would have written', async () => {
  const stock = fileOf(hvmParts({ batches: stockBatches }));
  const image = await rewritten(await imageOf(stock), withoutStream);
  const back = fresh('xl');
  await convertToXen(image, back);
  assert.ok(readFileSync(back).equals(stock));
});

test('a domain that xl did not make gets a configuration of its own', async () => {
  const image = await rewritten(await imageOf(fileOf(pvParts())), (manifest) => ({
    ...withoutStream(manifest),
    domain: { ...manifest.domain, name: 'churner', config: '{"program":"writer","seed":7}' },
  }));
  const back = fresh('xl');
  await convertToXen(image, back);
  const again = fresh('image');
  const { name, type } = await convertFromXen(back, again);
  assert.deepEqual([name, type], ['churner', 'pv']);
  const differences = await compareXenFiles(back, await xlOf(fileOf(pvParts())));
  assert.deepEqual(
    differences.map(({ what }) => what),
    ['xl header'],
  );
});

test('a domain that was renamed has its new name in the configuration', async () => {
  const image = await rewritten(await imageOf(fileOf(pvParts())), (manifest) => ({
    ...withoutStream(manifest),
    domain: { ...manifest.domain, name: 'renamed' },
  }));
  const back = fresh('xl');
  await convertToXen(image, back);
  const again = await convertFromXen(back, fresh('image'));
  assert.equal(again.name, 'renamed');
});

async function xlOf(file: Buffer): Promise<string> {
  await Promise.resolve();
  const path = fresh('xl');
  writeFileSync(path, file);
  return path;
}

const cases: [string, Change, RegExp, string][] = [
  ['of a paused guest', (m) => ({ ...m, consistency: 'paused' }), /paused/, 'IMAGE_NOT_RESTORABLE'],
  [
    'without a vCPU',
    (m) => ({ ...withoutStream(m), state: { ...m.state, vcpus: [] } }),
    /no vCPU/,
    'IMAGE_NOT_RESTORABLE',
  ],
  [
    'without shared info',
    (m) => ({ ...withoutStream(m), state: { ...m.state, sharedInfo: Buffer.alloc(0) } }),
    /shared info/,
    'IMAGE_NOT_RESTORABLE',
  ],
  [
    'with a p2m too short',
    (m) => ({ ...withoutStream(m), geometry: { ...m.geometry, p2mFrames: [] } }),
    /0 p2m frames/,
    'IMAGE_NOT_RESTORABLE',
  ],
  [
    'with registers of another size',
    (m) => ({
      ...withoutStream(m),
      state: { ...m.state, vcpus: m.state.vcpus.map((v) => ({ ...v, basic: v.xsave })) },
    }),
    /848 bytes of state/,
    'IMAGE_NOT_RESTORABLE',
  ],
  ['whose stream is nonsense', (m) => ({ ...m, stream: { schema: 1 } }), /manifest.stream/, 'IMAGE_DAMAGED'],
];
for (const [name, change, says, code] of cases)
  test(`an image ${name} is refused`, async () => {
    const image = await rewritten(await imageOf(fileOf(pvParts())), change);
    const back = fresh('xl');
    await assert.rejects(convertToXen(image, back), (error: unknown) => {
      assert.ok(error instanceof DormouseError);
      assert.equal(error.code, code);
      assert.match(error.message, says);
      return true;
    });
    assert.equal(readdirSync(folder).includes(back.slice(folder.length + 1)), false);
  });

interface Stream {
  items: { kind: string; type?: number; records?: number; layer?: string; body?: Buffer; id?: number }[];
  layout: { batches: [number, number][]; runs: [number, number][] } | null;
  libxc: { version: number };
}

const lies: [string, (stream: Stream) => unknown][] = [
  ['a page with a frame is not listed', (s) => (s.layout = { batches: [[7, 1]], runs: [[0, 7]] })],
  [
    'a page is listed twice',
    (s) =>
      (s.layout = {
        batches: [[8, 1]],
        runs: [
          [0, 4],
          [0, 4],
        ],
      }),
  ],
  ['a pfn is beyond the guest', (s) => (s.layout = { batches: [[8, 1]], runs: [[1, 8]] })],
  ['batches and runs differ', (s) => (s.layout = { batches: [[9, 1]], runs: [[0, 8]] })],
  [
    'more records than batches',
    (s) => Object.assign(s.items.find(({ kind }) => kind === 'pages') ?? {}, { records: 9 }),
  ],
  ['no pages', (s) => (s.items = s.items.filter(({ kind }) => kind !== 'pages'))],
  ['no END', (s) => s.items.pop()],
  ['a record twice', (s) => s.items.splice(2, 0, s.items[2] ?? { kind: '' })],
  [
    'a vCPU that is not there',
    (s) => Object.assign(s.items.find(({ kind }) => kind === 'vcpu') ?? {}, { id: 5 }),
  ],
  [
    'a page record in disguise',
    (s) => s.items.splice(6, 0, { kind: 'record', layer: 'libxc', type: 1, body: Buffer.alloc(8) }),
  ],
  [
    'an unknown mandatory record',
    (s) => s.items.splice(6, 0, { kind: 'record', layer: 'libxc', type: 0x44, body: Buffer.alloc(8) }),
  ],
  ['version 2 with STATIC_DATA_END', (s) => (s.libxc.version = 2)],
];
test('an image that lies about its stream gives no file', async () => {
  const honest = await imageOf(
    fileOf(pvParts({ batches: [[...Array(8).keys()].map((pfn) => dataPage(pfn, pfn))] })),
  );
  await convertToXen(honest, fresh('xl'));
  for (const [name, lie] of lies) {
    const image = await rewritten(honest, (manifest) => {
      lie(manifest.stream as Stream);
      return manifest;
    });
    const back = fresh('xl');
    await assert.rejects(
      convertToXen(image, back),
      (error: unknown) => error instanceof DormouseError && error.code === 'IMAGE_DAMAGED',
      name,
    );
    assert.equal(readdirSync(folder).includes(back.slice(folder.length + 1)), false, name);
  }
});

test('verify-stream-v2 accepts a stream made for a domain of our own', { skip: noVerifier }, async () => {
  for (const file of [
    pvParts({ batches: stockBatches, vcpus: [0, 1] }),
    hvmParts({ batches: stockBatches }),
  ]) {
    const image = await rewritten(await imageOf(fileOf(file)), (manifest) => ({
      ...withoutStream(manifest),
      domain: { ...manifest.domain, config: '' },
    }));
    const back = fresh('xl');
    await convertToXen(image, back);
    assert.equal(verifierComplaint(back), null);
  }
  assert.equal(p2mFramesOf(2300, 8).length, 5);
});

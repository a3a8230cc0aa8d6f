/** Synthetic xl files to image and back. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { DormouseError, type ErrorCode } from '../../src/errors.js';
import type { ConvertProgress } from '../../src/convert/progress.js';
import { compareXenFiles } from '../../src/convert/compare.js';
import { detectFormat } from '../../src/xenstream/detect.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { noVerifier, verifierComplaint } from '../support/xen_tools.js';
import {
  bodiless,
  dataPage,
  fileOf,
  hvmParts,
  inserted,
  moved,
  offsetOf,
  pageData,
  patternPage,
  pvParts,
  record,
  replacing,
  tablePage,
  u32,
  xlConfig,
  xlHeader,
  type Part,
} from '../support/xen_stream.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-convert-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const fresh = (kind: string): string => join(folder, `${++files}.${kind}`);

function written(parts: readonly Part[] | Buffer): string {
  const path = fresh('xl');
  writeFileSync(path, Buffer.isBuffer(parts) ? parts : fileOf(parts));
  return path;
}

async function thereAndBack(
  parts: readonly Part[] | Buffer,
): Promise<{ xl: string; image: string; back: string }> {
  const [xl, image, back] = [written(parts), fresh('image'), fresh('xl')];
  await convertFromXen(xl, image);
  await convertToXen(image, back);
  return { xl, image, back };
}

const hasCode =
  (code: ErrorCode, says = /./) =>
  (error: unknown) => {
    assert.ok(error instanceof DormouseError, String(error));
    assert.equal(error.code, code, error.message);
    assert.equal(error.guest, 'untouched');
    assert.match(error.message, says);
    return true;
  };

const unknownOptional = record(0x80000001, Buffer.from('a record of a later Xen'));
const shapes: Record<string, Part[]> = {
  'PV, version 3': pvParts({ vcpus: [0, 1] }),
  'PV, version 2 without policies': pvParts({ version: 2, policies: false }),
  'PV, version 2 with policies': pvParts({ version: 2 }),
  'PV, 32-bit': pvParts({ width: 4, vcpus: [0, 2] }),
  'PV, vCPU 1 with empty blobs': pvParts({ vcpus: [0, 1], emptyBlobs: [1] }),
  'PV, vCPU 3 before vCPU 0': pvParts({ vcpus: [3, 0] }),
  'PV, pfns never mentioned': pvParts({ nrPfns: 2000, batches: [[dataPage(5, 1), dataPage(1999, 0)]] }),
  'PV, pages out of order, batches uneven': pvParts({
    batches: [[dataPage(9, 1)], [dataPage(3, 2), dataPage(2, 3), bodiless(0, 15)], [tablePage(7, 4, 4)]],
  }),
  'PV, one large batch': pvParts({ batches: [Array.from({ length: 2500 }, (_, i) => dataPage(i, i % 3))] }),
  'PV, all table types': pvParts({
    batches: [[1, 2, 3, 4, 9, 10, 11, 12].map((type, i) => tablePage(i, type, i))],
  }),
  'PV, records among the pages': inserted(pvParts(), 'tsc', unknownOptional),
  'PV, unknown record between two page records': [...pvParts()].flatMap((part, i, all) =>
    part.name === 'pages' && all[i - 1]?.name === 'pages'
      ? [{ name: 'x', bytes: unknownOptional }, part]
      : [part],
  ),
  'PV, deprecated TOOLSTACK': inserted(pvParts(), 'tsc', record(0x0b, Buffer.from('old'))),
  'PV, another order of policies': moved(pvParts(), 'msr', 'cpuid'),
  'PV, converted by the legacy converter': replacing(pvParts(), 'libxl', [
    Buffer.concat([Buffer.from('LibxlFmt'), u32(2, true), u32(2, true)]),
  ]),
  'PV, bytes after the configuration': pvParts({ optionalTail: Buffer.from('more') }),
  'PV, optional flags': replacing(pvParts(), 'xl', [xlHeader(xlConfig('pv'), { optional: 0x80 })]),
  'PV, configuration with odd bytes': pvParts({ config: xlConfig('pv', 'gä\u0001st') }),
  PVH: hvmParts(),
  'PVH, parameters before context': moved(hvmParts(), 'params', 'context record'),
  'HVM with emulator records': hvmParts({ kind: 'hvm' }),
  'HVM, version 2': hvmParts({ kind: 'hvm', version: 2, policies: false }),
  'HVM, unknown libxl record': inserted(hvmParts({ kind: 'hvm' }), 'libxl end', unknownOptional),
};

for (const [name, parts] of Object.entries(shapes))
  test(`there and back, byte for byte: ${name}`, async () => {
    const { xl, image, back } = await thereAndBack(parts);
    assert.ok(readFileSync(xl).equals(readFileSync(back)), 'the files differ');
    assert.deepEqual((await verifyImage(image)).findings, []);
    assert.deepEqual(await compareXenFiles(xl, back), []);
  });

test('the image has what the stream said', async () => {
  const pages = [
    [dataPage(0, 1), dataPage(1, 0), tablePage(2, 0xc, 2), tablePage(3, 1, 0), bodiless(4, 0xf)],
    [bodiless(5, 0xd), bodiless(6, 0xe), dataPage(8, 4)],
  ];
  const image = fresh('image');
  const result = await convertFromXen(written(pvParts({ batches: pages, nrPfns: 10 })), image, {
    tool: 'test',
  });
  assert.deepEqual(result.counts, {
    data: 2,
    zero: 1,
    table: 2,
    noFrame: 3,
    broken: 1,
    alloc: 1,
    sameAsParent: 0,
  });
  assert.equal(result.memoryBytes, 6 * 4096);
  assert.equal(result.name, 'guest');
  const reader = await ImageReader.open(image, { lanes: 1 });
  try {
    const { manifest } = reader;
    assert.deepEqual(manifest.geometry.p2mFrames, [1]);
    assert.equal(manifest.domain.type, 'pv');
    assert.equal(manifest.domain.vcpus, 2);
    assert.equal(manifest.domain.config, xlConfig('pv'));
    assert.equal(manifest.consistency, 'suspend-point');
    assert.equal(manifest.tool, 'test');
    assert.equal(reader.pageEntry(2).type, 0xc);
    assert.equal(reader.pageEntry(7).pageClass, 'noFrame');
    assert.ok(
      reader.readPages([8, 1, 2]).equals(Buffer.concat([patternPage(4), patternPage(0), patternPage(2)])),
    );
  } finally {
    reader.close();
  }
});

test('of pages that come more than once the last is taken', async () => {
  const live = pvParts({
    batches: [
      [dataPage(0, 1), dataPage(1, 2), dataPage(2, 3), bodiless(3, 15)],
      [dataPage(1, 20), dataPage(0, 0), dataPage(3, 30)],
      [tablePage(1, 1, 200), bodiless(2, 15)],
    ],
  });
  const once = pvParts({
    batches: [[dataPage(0, 0), tablePage(1, 1, 200), bodiless(2, 15), dataPage(3, 30)]],
  });
  const { xl, back } = await thereAndBack(live);
  assert.ok(readFileSync(back).equals(fileOf(once)));
  assert.deepEqual(await compareXenFiles(xl, back), []);
  const result = await convertFromXen(xl, fresh('image'));
  assert.match(result.notes.join(), /5 pages were in the stream more than once/);
});

test('a VERIFY run is dropped, and said so', async () => {
  const parts = inserted(inserted(pvParts(), 'tsc', record(0x0d)), 'tsc', pageData([dataPage(0, 99)]));
  const { back } = await thereAndBack(parts);
  assert.ok(readFileSync(back).equals(fileOf(pvParts())));
  const result = await convertFromXen(written(parts), fresh('image'));
  assert.match(result.notes.join(), /VERIFY/);
});

test('a page order of too many runs is written back in stock order', async () => {
  const count = 70_000;
  const odd = Array.from({ length: count }, (_, i) => bodiless((i * 33_331) % count, 15));
  const { xl, back } = await thereAndBack(pvParts({ batches: [[dataPage(count, 1)], odd] }));
  assert.deepEqual(await compareXenFiles(xl, back), []);
  const again = await convertFromXen(xl, fresh('image'));
  assert.match(again.notes.join(), /too irregular/);
});

test('a short list of a huge guest is refused at once; one within reason is taken', async () => {
  const far = (pfn: number) => written(hvmParts({ batches: [[dataPage(0, 1), bodiless(pfn, 15)]] }));
  const started = performance.now();
  for (const pfn of [2 ** 32 - 1, 2 ** 28])
    await assert.rejects(
      convertFromXen(far(pfn), fresh('image')),
      hasCode('STREAM_INVALID', /lists 2 pages/),
    );
  assert.ok(performance.now() - started < 2000);
  const { counts } = await convertFromXen(far(2 ** 22), fresh('image'));
  assert.equal(counts.noFrame, 2 ** 22);
});

test('gzip files are read, damaged ones refused', async () => {
  const whole = fileOf(pvParts());
  const packed = gzipSync(whole);
  const [image, back] = [fresh('image'), fresh('xl')];
  const xl = written(packed);
  await convertFromXen(xl, image);
  await convertToXen(image, back);
  assert.ok(readFileSync(back).equals(whole));
  const cut = written(packed.subarray(0, packed.length - 200));
  await assert.rejects(convertFromXen(cut, fresh('image')), hasCode('STREAM_INVALID', /gzip/));
  const bad = Buffer.from(packed);
  bad.fill(0x55, 2000, 2100);
  await assert.rejects(convertFromXen(written(bad), fresh('image')), hasCode('STREAM_INVALID'));
});

test('the kind of a file is told by its first bytes', async () => {
  const { xl, image } = await thereAndBack(pvParts());
  assert.equal(await detectFormat(xl), 'xl');
  assert.equal(await detectFormat(image), 'dormouse');
  assert.equal(await detectFormat(written(gzipSync(fileOf(pvParts())))), 'xl-gzip');
  assert.equal(await detectFormat(written(gzipSync(Buffer.from('short')))), 'unknown');
  assert.equal(await detectFormat(written(Buffer.alloc(0))), 'unknown');
  await assert.rejects(detectFormat(join(folder, 'absent')), hasCode('IMAGE_NOT_FOUND'));
  await assert.rejects(detectFormat(folder), hasCode('IMAGE_NOT_FOUND'));
});

test('a refused file leaves nothing behind', async () => {
  const whole = fileOf(pvParts());
  const before = readdirSync(folder).length;
  for (const cut of [0, 31, 60, offsetOf(pvParts(), 'pages') + 20, whole.length - 8, whole.length - 1]) {
    const xl = written(whole.subarray(0, cut));
    await assert.rejects(convertFromXen(xl, fresh('image')), hasCode('STREAM_INVALID'));
    rmSync(xl);
  }
  const noJson = written(pvParts({ config: 'name = "old"' }));
  await assert.rejects(convertFromXen(noJson, fresh('image')), hasCode('STREAM_INVALID', /configuration/));
  rmSync(noJson);
  assert.equal(readdirSync(folder).length, before);
});

test('bytes changed: refused, or the change is there again on the way back', async () => {
  const parts = pvParts({
    width: 4,
    batches: [[dataPage(0, 1), tablePage(1, 1, 2), bodiless(2, 15), dataPage(3, 0)]],
  });
  const whole = fileOf(parts);
  let [refusals, kept] = [0, 0];
  // The beginning of each part, where its structure is, and one byte further in.
  const places = parts.flatMap(({ bytes }, i) => {
    const start = fileOf(parts.slice(0, i)).length;
    const structure = Array.from(
      { length: Math.min(12, Math.ceil(bytes.length / 3)) },
      (_, k) => start + 3 * k,
    );
    return [...structure, start + Math.floor(bytes.length / 2)];
  });
  for (const at of places) {
    const changed = Buffer.from(whole);
    changed.writeUInt8(whole.readUInt8(at) ^ (1 << (at % 8)), at);
    const [xl, image, back] = [written(changed), fresh('image'), fresh('xl')];
    let notes: readonly string[];
    try {
      ({ notes } = await convertFromXen(xl, image));
    } catch (error) {
      assert.ok(
        error instanceof DormouseError && error.code.startsWith('STREAM_'),
        `byte ${at}: ${String(error)}`,
      );
      ++refusals;
      rmSync(xl);
      continue;
    }
    await convertToXen(image, back);
    assert.deepEqual(await compareXenFiles(xl, back), [], `byte ${at}`);
    assert.ok(notes.length > 0 || readFileSync(back).equals(changed), `byte ${at} was not carried`);
    ++kept;
    for (const path of [xl, image, back]) rmSync(path);
  }
  assert.ok(refusals > 10 && kept > 10, `${refusals} refused, ${kept} kept`);
});

test('outputs that cannot be: there already, a folder, a link, no folder', async () => {
  const xl = written(pvParts());
  const image = fresh('image');
  await convertFromXen(xl, image);
  const link = fresh('link');
  symlinkSync(join(folder, 'nowhere'), link);
  for (const [path, code] of [
    [xl, 'OUTPUT_EXISTS'],
    [folder, 'OUTPUT_INVALID'],
    [link, 'OUTPUT_INVALID'],
    [join(folder, 'no/such'), 'OUTPUT_INVALID'],
  ] as const) {
    await assert.rejects(convertFromXen(xl, path), hasCode(code));
    await assert.rejects(convertToXen(image, path), hasCode(code));
  }
  assert.ok(readFileSync(xl).equals(fileOf(pvParts())));
});

test('progress ends at the number of pages; an abort leaves nothing', async () => {
  const xl = written(pvParts({ nrPfns: 5000 }));
  const image = fresh('image');
  const seen: ConvertProgress[] = [];
  await convertFromXen(xl, image, { onProgress: (progress) => seen.push(progress) });
  assert.deepEqual([...new Set(seen.map(({ phase }) => phase))], ['verify', 'pages', 'commit']);
  assert.equal(seen.at(-1)?.donePages, 5000);
  for (const [convert, from, stopAt] of [
    [convertFromXen, xl, 'verify'],
    [convertFromXen, xl, 'pages'],
    [convertToXen, image, 'pages'],
    [convertToXen, image, 'verify'],
  ] as const) {
    const controller = new AbortController();
    const onProgress = ({ phase }: ConvertProgress) => {
      if (phase === stopAt) controller.abort();
    };
    const out = fresh('out');
    await assert.rejects(convert(from, out, { signal: controller.signal, onProgress }), hasCode('CANCELLED'));
    assert.equal(existsSync(out), false);
  }
});

test('verify-stream-v2 accepts what is written', { skip: noVerifier }, async () => {
  for (const name of ['PV, version 3', 'PV, 32-bit', 'PV, pfns never mentioned', 'PVH']) {
    const { back } = await thereAndBack(shapes[name] ?? []);
    assert.equal(verifierComplaint(back), null, name);
  }
});

test('verify-stream-v2 refuses what it should (the oracle can say no)', { skip: noVerifier }, () => {
  const parts = pvParts();
  assert.match(
    verifierComplaint(written(replacing(parts, 'tsc', [record(8, Buffer.alloc(16))]))) ?? '',
    /tsc|length/i,
  );
});

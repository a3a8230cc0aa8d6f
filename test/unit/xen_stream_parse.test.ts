/** The parser of xl save files: what it takes, and that everything else is a typed error at the right place. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import { DormouseError } from '../../src/errors.js';
import { parseStream } from '../../src/xenstream/stream_parser.js';
import { Survey } from '../../src/xenstream/survey.js';
import {
  bodiless,
  dataPage,
  defaultBatches,
  fileOf,
  hvmParts,
  inserted,
  libxcHeader,
  libxlHeader,
  moved,
  offsetOf,
  pageData,
  patternPage,
  pvParts,
  record,
  replacing,
  tablePage,
  u32,
  u64,
  xlConfig,
  xlHeader,
  type Part,
} from '../support/xen_stream.js';
import { streamInvalid, type ByteReader } from '../../src/xenstream/frames/byte_reader.js';

class MemoryReader implements ByteReader {
  offset = 0;
  constructor(private readonly bytes: Buffer) {}
  read(bytes: number, what: string): Promise<Buffer> {
    if (this.offset + bytes > this.bytes.length)
      return Promise.reject(streamInvalid(`the file ends inside ${what}`, this.bytes.length));
    this.offset += bytes;
    return Promise.resolve(this.bytes.subarray(this.offset - bytes, this.offset));
  }
  async skip(bytes: number, what: string): Promise<void> {
    await this.read(bytes, what);
  }
  atEnd(): Promise<boolean> {
    return Promise.resolve(this.offset === this.bytes.length);
  }
}

async function survey(bytes: Buffer, maxPfns = 2 ** 32): Promise<Survey> {
  const result = new Survey();
  await parseStream(new MemoryReader(bytes), result, { maxPfns, maxStateBytes: 1 << 20 });
  return result;
}

/** The error's code, null if there was none. */
async function codeOf(work: Promise<unknown>): Promise<string | null> {
  return work.then(
    () => null,
    (error: unknown) => (error instanceof DormouseError ? error.code : String(error)),
  );
}

async function refusal(parts: readonly Part[] | Buffer): Promise<DormouseError> {
  const bytes = Buffer.isBuffer(parts) ? parts : fileOf(parts);
  const thrown: unknown = await survey(bytes).then(
    () => null,
    (error: unknown) => error,
  );
  assert.ok(thrown instanceof DormouseError, `not refused: ${String(thrown)}`);
  assert.ok(thrown.place.offset !== undefined, 'no offset');
  return thrown;
}

async function refused(parts: readonly Part[] | Buffer, code: string, says: RegExp): Promise<void> {
  const error = await refusal(parts);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, says);
}

test('PV: every record is understood', async () => {
  const found = await survey(fileOf(pvParts({ vcpus: [0, 3], emptyBlobs: [3] })));
  assert.equal(found.nrPfns, 8);
  assert.equal(found.guestWidth, 8);
  assert.deepEqual(found.p2mFrames, [1]);
  assert.equal(found.listedPages, 8);
  assert.deepEqual(
    found.state.vcpus.map(({ id, xsave }) => [id, xsave.length]),
    [
      [0, 848],
      [3, 0],
    ],
  );
  assert.deepEqual(found.streamManifest().layout, { batches: [[4, 2]], runs: [[0, 8]] });
});

test('PVH: the highest pfn gives the size; emulator records of an HVM guest are kept', async () => {
  const pvh = await survey(fileOf(hvmParts({ batches: [[dataPage(0, 1), bodiless(1000, 15)]] })));
  assert.equal(pvh.nrPfns, 1001);
  assert.equal(pvh.state.hvmContext.length, 301);
  const hvm = await survey(fileOf(hvmParts({ kind: 'hvm' })));
  const kept = hvm.streamManifest().items.filter((item) => item.kind === 'record' && item.layer === 'libxl');
  assert.deepEqual(
    kept.map((item) => item.kind === 'record' && item.type),
    [1, 2, 3, 0],
  );
});

test('version 2 has no STATIC_DATA_END and may lack policies', async () => {
  for (const policies of [true, false]) {
    assert.equal((await survey(fileOf(pvParts({ version: 2, policies })))).nrPfns, 8);
    assert.equal((await survey(fileOf(hvmParts({ version: 2, policies })))).nrPfns, 8);
  }
  await refused(inserted(pvParts({ version: 2 }), 'p2m', record(0x10)), 'STREAM_INVALID', /version 2/);
});

test('HVM_PARAMS may come before or after HVM_CONTEXT', async () => {
  await survey(fileOf(moved(hvmParts(), 'params', 'context record')));
});

test('unknown optional records are kept, unknown mandatory ones refused', async () => {
  const extra = record(0x80000001, Buffer.from('later'));
  const kept = await survey(fileOf(inserted(pvParts(), 'tsc', extra)));
  assert.ok(kept.streamManifest().items.some((item) => item.kind === 'record' && item.type === 0x80000001));
  await survey(fileOf(inserted(hvmParts(), 'libxl end', extra)));
  await refused(inserted(pvParts(), 'tsc', record(0x13)), 'STREAM_UNSUPPORTED', /0x13 is mandatory/);
  await refused(inserted(hvmParts(), 'libxl end', record(6)), 'STREAM_UNSUPPORTED', /0x6 is mandatory/);
});

test('checkpointed streams are refused with the reason', async () => {
  for (const type of [0x0e, 0x0f])
    await refused(inserted(pvParts(), 'end', record(type)), 'STREAM_UNSUPPORTED', /Remus or COLO/);
  for (const type of [4, 5])
    await refused(
      inserted(pvParts(), 'libxl end', record(type, Buffer.alloc(8))),
      'STREAM_UNSUPPORTED',
      /Remus/,
    );
});

test('pages after VERIFY are not counted', async () => {
  const again = inserted(inserted(pvParts(), 'tsc', record(0x0d)), 'tsc', pageData([dataPage(0, 99)]));
  const found = await survey(fileOf(again));
  assert.equal(found.verifySeen, true);
  assert.equal(found.listedPages, 8);
  assert.equal(found.repeatedPages, 0);
});

test('headers: magic, byte order, flags, versions, kinds', async () => {
  const parts = pvParts();
  const spoiled = (name: string, at: number, value: number) => {
    const bytes = fileOf(parts);
    bytes.writeUInt8(value, offsetOf(parts, name) + at);
    return bytes;
  };
  const cases: [Buffer | Part[], string, RegExp][] = [
    [spoiled('xl', 0, 0x59), 'STREAM_INVALID', /not an xl save file/],
    [spoiled('xl', 32, 0), 'STREAM_INVALID', /byte order/],
    [replacing(parts, 'xl', [xlHeader(xlConfig('pv'), { mandatory: 1 })]), 'STREAM_UNSUPPORTED', /legacy/],
    [replacing(parts, 'xl', [xlHeader(xlConfig('pv'), { mandatory: 7 })]), 'STREAM_UNSUPPORTED', /flags 0x7/],
    [spoiled('xl', 47, 0x7f), 'STREAM_INVALID', /optional data/],
    [spoiled('xl', 49, 0x7f), 'STREAM_INVALID', /longer than its frame/],
    [spoiled('libxl', 0, 0), 'STREAM_INVALID', /not a libxl stream/],
    [spoiled('libxl', 11, 3), 'STREAM_UNSUPPORTED', /version 3/],
    [replacing(parts, 'libxl', [libxlHeader(1)]), 'STREAM_UNSUPPORTED', /big-endian/],
    [replacing(parts, 'libxl', [libxlHeader(4)]), 'STREAM_UNSUPPORTED', /options 0x4/],
    [spoiled('libxc', 0, 0), 'STREAM_UNSUPPORTED', /legacy/],
    [spoiled('libxc', 8, 0), 'STREAM_INVALID', /not a libxc stream/],
    [replacing(parts, 'libxc', [libxcHeader(1, 1)]), 'STREAM_UNSUPPORTED', /version 1/],
    [replacing(parts, 'libxc', [libxcHeader(4, 1)]), 'STREAM_UNSUPPORTED', /version 4/],
    [spoiled('libxc', 17, 1), 'STREAM_UNSUPPORTED', /big-endian/],
    [spoiled('libxc', 17, 2), 'STREAM_UNSUPPORTED', /options 0x2/],
    [spoiled('libxc', 20, 1), 'STREAM_INVALID', /reserved/],
    [spoiled('libxc', 24, 3), 'STREAM_UNSUPPORTED', /domain type 3/],
    [spoiled('libxc', 28, 13), 'STREAM_INVALID', /page shift 13/],
    [spoiled('libxc', 30, 1), 'STREAM_INVALID', /reserved/],
  ];
  for (const [input, code, says] of cases) await refused(input, code, says);
  await survey(fileOf(replacing(parts, 'libxl', [libxlHeader(2)])));
});

test('order and number of records', async () => {
  const pv = pvParts({ vcpus: [0, 1] });
  const hvm = hvmParts();
  const twice = (parts: Part[], name: string) => {
    const part = parts.find((one) => one.name === name);
    assert.ok(part);
    return replacing(parts, name, [part.bytes, part.bytes]);
  };
  for (const name of ['info', 'cpuid', 'msr', 'static', 'p2m', 'tsc', 'shared'])
    await refused(twice(pv, name), 'STREAM_INVALID', /a second/);
  for (const name of ['context record', 'params'])
    await refused(twice(hvm, name), 'STREAM_INVALID', /a second/);
  for (const name of ['basic 1', 'xsave 0', 'extended 1', 'msrs 0'])
    await refused(twice(pv, name), 'STREAM_INVALID', /is there twice for vCPU/);
  for (const [name, before, says] of [
    ['p2m', 'info', /before X86_PV_INFO/],
    ['p2m', 'static', /before STATIC_DATA_END/],
    ['pages', 'p2m', /before libxc X86_PV_P2M_FRAMES|before X86_PV_P2M_FRAMES/],
    ['basic 0', 'pages', /before the first PAGE_DATA/],
    ['static', 'info', /before X86_PV_INFO/],
    ['static', 'tsc', /before STATIC_DATA_END/],
    ['msr', 'p2m', /after the end of the static data/],
    ['cpuid', 'tsc', /after the end of the static data/],
    ['xsave 0', 'basic 0', /no basic state before it/],
  ] as const)
    await refused(moved(pv, name, before), 'STREAM_INVALID', says);
  for (const name of ['p2m', 'shared'])
    await refused(replacing(pv, name, []), 'STREAM_INVALID', /PAGE_DATA|without/);
  for (const name of ['context record', 'params', 'static'])
    await refused(replacing(hvm, name, []), 'STREAM_INVALID', /without|before/);
  await refused(pvParts({ vcpus: [] }), 'STREAM_INVALID', /without libxc X86_PV_VCPU_BASIC/);
  await refused(inserted(hvm, 'tsc', record(0x07, patternPage(1))), 'STREAM_INVALID', /in a HVM stream/);
  await refused(inserted(pv, 'tsc', record(0x09, patternPage(1))), 'STREAM_INVALID', /in a PV stream/);
  await refused(
    inserted(pv, 'libxl end', record(3, Buffer.alloc(16))),
    'STREAM_INVALID',
    /without an HVM guest/,
  );
  await refused(inserted(pv, 'libxl end', record(1)), 'STREAM_INVALID', /a second/);
  await refused(replacing(pv, 'context', [record(0)]), 'STREAM_INVALID', /ends without a libxc context/);
  await refused(Buffer.concat([fileOf(pv), Buffer.alloc(1)]), 'STREAM_INVALID', /bytes follow/);
});

test('bodies of the wrong length or form', async () => {
  const pv = pvParts();
  const cases: [Part[], RegExp][] = [
    [replacing(pv, 'info', [record(2, Buffer.from([8, 3, 0, 0, 0, 0, 0, 0]))]), /width 8 with 3 levels/],
    [replacing(pv, 'info', [record(2, Buffer.from([8, 4, 0, 0, 0, 0, 0]))]), /length is not 8/],
    [replacing(pv, 'info', [record(2, Buffer.from([8, 4, 0, 0, 0, 0, 0, 1]))]), /reserved/],
    [replacing(pv, 'cpuid', [record(0x11, Buffer.alloc(25))]), /multiple of 24/],
    [replacing(pv, 'msr', [record(0x12, Buffer.alloc(17))]), /multiple of 16/],
    [replacing(pv, 'static', [record(0x10, Buffer.alloc(1))]), /has a body/],
    [
      replacing(pv, 'p2m', [record(3, Buffer.concat([u32(0), u32(512), u64(1)]))]),
      /does not fit pfns 0 to 512/,
    ],
    [replacing(pv, 'p2m', [record(3, Buffer.concat([u32(0), u32(7), u64(8)]))]), /frame 0 is not a pfn/],
    [
      replacing(pv, 'p2m', [record(3, Buffer.concat([u32(0), u32(7), u64(1n << 60n)]))]),
      /frame 0 is not a pfn/,
    ],
    [replacing(pv, 'shared', [record(7, Buffer.alloc(4095))]), /not 4096/],
    [replacing(pv, 'tsc', [record(8, Buffer.alloc(23))]), /not 24/],
    [replacing(pv, 'basic 0', [record(4, Buffer.alloc(8 + 2800))]), /2800 bytes of state, not 5168/],
    [replacing(pv, 'basic 0', [record(4, Buffer.alloc(4))]), /too short/],
    [replacing(pv, 'basic 0', [record(4, Buffer.concat([u32(8192), Buffer.alloc(5172)]))]), /vCPU 8192/],
    [replacing(pv, 'extended 0', [record(5, Buffer.alloc(8 + 129))]), /more than 128/],
    [replacing(pv, 'xsave 0', [record(6, Buffer.alloc(8 + 15))]), /less than 16/],
    [replacing(pv, 'msrs 0', [record(12, Buffer.alloc(8 + 15))]), /multiple of 16/],
    [
      replacing(hvmParts(), 'params', [record(10, Buffer.concat([u32(2), u32(0), Buffer.alloc(16)]))]),
      /its count/,
    ],
    [replacing(hvmParts(), 'context record', [record(9)]), /is empty/],
  ];
  for (const [parts, says] of cases) await refused(parts, 'STREAM_INVALID', says);
  const late = Buffer.concat([u32(1), u32(7), u64(1)]);
  await refused(replacing(pv, 'p2m', [record(3, late)]), 'STREAM_UNSUPPORTED', /begins at pfn 1/);
  await survey(fileOf(pvParts({ width: 4 })));
});

test('PAGE_DATA: counts, lengths, pfns and types', async () => {
  const pv = pvParts();
  const hand = (count: number, reserved: number, list: bigint[], bodyBytes: number) =>
    record(1, Buffer.concat([u32(count), u32(reserved), ...list.map(u64), Buffer.alloc(bodyBytes)]));
  const cases: [Buffer, RegExp][] = [
    [record(1, Buffer.alloc(4)), /too short/],
    [hand(0, 0, [], 0), /lists no page/],
    [hand(1, 1, [0n], 4096), /reserved/],
    [hand(2, 0, [0n], 0), /shorter than its list/],
    [hand(0xffffffff, 0, [0n], 0), /shorter than its list/],
    [hand(1, 0, [0n], 4095), /does not fit/],
    [hand(1, 0, [0n], 8192), /does not fit/],
    [hand(1, 0, [15n << 60n], 4096), /does not fit/],
    [hand(1, 0, [8n], 4096), /pfn 8 is beyond/],
    [hand(1, 0, [1n << 51n], 4096), /is beyond/],
    [hand(1, 0, [1n << 52n], 4096), /reserved bits/],
    [hand(1, 0, [1n << 59n], 4096), /reserved bits/],
    ...[5n, 6n, 7n, 8n].map((type): [Buffer, RegExp] => [hand(1, 0, [type << 60n], 4096), /page type/]),
  ];
  for (const [bytes, says] of cases) await refused(inserted(pv, 'tsc', bytes), 'STREAM_INVALID', says);
  await survey(fileOf(inserted(pv, 'tsc', hand(1, 0, [15n << 60n], 0))));
  const tableInHvm = inserted(hvmParts(), 'tsc', pageData([tablePage(0, 1, 1)]));
  await refused(tableInHvm, 'STREAM_INVALID', /page table in an HVM/);
});

test('an error names the byte it found', async () => {
  const parts = pvParts();
  const error = await refusal(inserted(parts, 'tsc', pageData([dataPage(1, 1), bodiless(9, 15)])));
  assert.equal(error.place.offset, offsetOf(parts, 'tsc') + 16 + 8);
  const unknown = await refusal(inserted(parts, 'shared', record(0x20)));
  assert.equal(unknown.place.offset, offsetOf(parts, 'shared'));
});

test('a lying length is refused before anything of that size is allocated', async () => {
  const parts = pvParts();
  const over = Buffer.concat([u32(0x80000001), u32(128 * 1024 * 1024 + 1)]);
  await refused(inserted(parts, 'tsc', over), 'STREAM_INVALID', /above the limit/);
  const large = record(0x80000001, Buffer.alloc(600_000));
  const twice = inserted(inserted(parts, 'tsc', large), 'tsc', large);
  await refused(twice, 'STREAM_UNSUPPORTED', /more than 1048576 bytes/);
  const many = Buffer.concat(Array.from({ length: 20_000 }, () => record(0x80000001)));
  await refused(inserted(parts, 'tsc', many), 'STREAM_UNSUPPORTED', /more than 1048576 bytes/);
});

test('HVM pfns at the limit of the image format are refused', async () => {
  const far = fileOf(hvmParts({ batches: [[bodiless(999, 15)]] }));
  await survey(far, 1000);
  await assert.rejects(survey(far, 999), /pfn 999 is beyond the guest's 999 pages/);
});

/** One page with a body and some without keep the exhaustive tests short. */
const small = { width: 4, batches: [[bodiless(0, 15), dataPage(1, 1)], [bodiless(2, 14)]] } as const;

test('cut short anywhere, a file is refused', async () => {
  for (const parts of [pvParts(small), hvmParts({ ...small, kind: 'hvm' })]) {
    const whole = fileOf(parts);
    await survey(whole);
    for (let length = 0; length < whole.length; ++length) {
      const error = await refusal(whole.subarray(0, length));
      assert.equal(error.code, 'STREAM_INVALID', `cut to ${length}: ${error.message}`);
    }
  }
});

test('with any byte changed, a file is refused or keeps its structure', async () => {
  for (const parts of [pvParts(small), hvmParts({ ...small, kind: 'hvm' })]) {
    const whole = fileOf(parts);
    let refusals = 0;
    for (let at = 0; at < whole.length; ++at) {
      const original = whole.readUInt8(at);
      whole.writeUInt8(original ^ (at % 2 === 0 ? 0xff : 1 << (at % 8)), at);
      const code = await codeOf(survey(whole));
      if (code !== null) ++refusals;
      assert.match(code ?? 'STREAM_INVALID', /^STREAM_/, `byte ${at}`);
      whole.writeUInt8(original, at);
    }
    assert.ok(refusals > 200, `${refusals} refusals`);
  }
});

test('an abort stops the parse', async () => {
  const bytes = fileOf(pvParts({ batches: defaultBatches }));
  const limits = { maxPfns: 2 ** 32, maxStateBytes: 1 << 20 };
  const parsed = parseStream(new MemoryReader(bytes), {}, limits, AbortSignal.abort());
  await assert.rejects(
    parsed,
    (error: unknown) => error instanceof DormouseError && error.code === 'CANCELLED',
  );
});

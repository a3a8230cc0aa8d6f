/** Points of a guest as files of their own, each kind read by something that shares nothing with what wrote it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ExportResult, exportPoint } from '../../src/convert/export_point.js';
import { type ExportKind, exportKinds } from '../../src/convert/export_kind.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import type { Host } from '../../src/host/contract.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restore } from '../../src/restore/restore.js';
import { signerState } from '../../src/restore/trust.js';
import { steps } from '../../src/worker/steps.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { PointRecord } from '../../src/store/record.js';
import { documentOf, failure } from '../support/command.js';
import { CoreDump } from '../support/elf_core.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { contentsOf } from '../support/image_contents.js';
import { plainHost } from '../support/plain_host.js';
import { pointStage, type PointStage, uuidOf } from '../support/point_stage.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 44, steps: 3000, rate: 1500, memoryMib: 16 };

interface Stage extends PointStage {
  readonly points: DomainPoints;
  readonly taken: readonly PointRecord[];
  readonly untouched: string;
  /** For what is exported. */
  readonly out: string;
}

async function setUp(t: TestContext, seenAs: (host: EmbeddedHost) => Host = (host) => host): Promise<Stage> {
  const stage = await pointStage(t, 128);
  const untouched = await untouchedDigest(stage.host, plan);
  await bootGuest(stage.host, 'guest', plan);
  const session = await PointSession.open(seenAs(stage.host), 'guest', stage.store);
  const taken: PointRecord[] = [];
  for (let i = 0; i < 3; i++) {
    await sleep(30);
    taken.push((await session.take({ mode: 'light', reason: 'protect' })).record);
  }
  await session.end();
  const out = join(stage.dir, '..', 'out');
  mkdirSync(out);
  return { ...stage, out, untouched, taken, points: stage.store.points(await uuidOf(stage)) };
}

const exported = ({ dir, out }: Stage, point: string, as: ExportKind): Promise<ExportResult> =>
  exportPoint(dir, 'guest', point, join(out, `${point}.${as}`), { as });

test('an image that needs no other goes on as the guest', async (t) => {
  const stage = await setUp(t);
  const { host, taken, points, untouched } = stage;
  for (const record of taken) {
    const { path, fileBytes, imageId } = await exported(stage, record.id, 'image');
    const { header, ancestors, signerKey, contentRoot } = await inspectImage(path);
    assert.deepEqual([header?.parent, ancestors, header?.imageId], [null, [], imageId]);
    assert.equal(signerState(signerKey), 'trusted');
    assert.equal(fileBytes, statSync(path).size);
    const { findings, contentRootCompared } = await verifyImage(path);
    assert.deepEqual([findings, contentRootCompared, contentRoot === null], [[], true, false]);
    assert.equal(
      (await digestImage(path)).digest,
      (await digestImage(await points.imagePath(record))).digest,
    );
    await restore(host, path, { paused: false, name: 'again' });
    assert.equal(await finalDigest(host, 'again', plan), untouched, record.id);
  }
});

test('a file of xl save holds the same guest', async (t) => {
  const stage = await setUp(t);
  const { taken, points, out } = stage;
  const record = taken[2];
  assert.ok(record);
  const { path } = await exported(stage, record.id, 'xl');
  const back = join(out, 'back.dmi');
  await convertFromXen(path, back);
  assert.equal((await digestImage(back)).digest, (await digestImage(await points.imagePath(record))).digest);
});

test('raw memory has each page at its pfn', async (t) => {
  const stage = await setUp(t);
  const record = stage.taken[2];
  assert.ok(record);
  const pages = await contentsOf(await stage.points.imagePath(record));
  const { path, fileBytes } = await exported(stage, record.id, 'raw');
  assert.deepEqual([fileBytes, statSync(path).size], [pages.length * 4096, pages.length * 4096]);
  const file = openSync(path, 'r');
  const found = Buffer.alloc(4096);
  for (const [pfn, { body }] of pages.entries()) {
    readSync(file, found, 0, 4096, pfn * 4096);
    assert.ok(found.equals(body), `pfn ${pfn}`);
  }
  closeSync(file);
});

test('LiME has the ranges that have pages, each with its addresses', async (t) => {
  const stage = await setUp(t);
  const record = stage.taken[2];
  assert.ok(record);
  const pages = await contentsOf(await stage.points.imagePath(record));
  const raw = readFileSync((await exported(stage, record.id, 'raw')).path);
  const { path, fileBytes } = await exported(stage, record.id, 'lime');
  const file = readFileSync(path);
  assert.equal(file.length, fileBytes);
  const found: number[] = [];
  let before = -1;
  for (let at = 0; at < file.length;) {
    assert.deepEqual([file.readUInt32LE(at), file.readUInt32LE(at + 4)], [0x4c694d45, 1]);
    const [start, last] = [8, 16].map((field) => Number(file.readBigUInt64LE(at + field))) as [
      number,
      number,
    ];
    assert.equal(file.readBigUInt64LE(at + 24), 0n);
    assert.ok(start > before + 1 || before < 0, 'ranges do not touch');
    const end = at + 32 + last + 1 - start;
    assert.ok(file.subarray(at + 32, end).equals(raw.subarray(start, last + 1)), `from ${start}`);
    for (let pfn = start / 4096; pfn * 4096 < last; pfn++) found.push(pfn);
    [before, at] = [last, end];
  }
  const kept = pages.flatMap(({ type }, pfn) => (type < 0xd ? [pfn] : []));
  assert.deepEqual(found, kept);
});

/** Pages of a core by the frame that its tables name. */
class CorePages {
  readonly #at = new Map<bigint, number>();

  constructor(private readonly core: CoreDump) {
    const table = core.read('.xen_p2m');
    for (let i = 0; i * 16 < table.length; i++) {
      assert.equal(table.readBigUInt64LE(i * 16), table.readBigUInt64LE(i * 16 + 8), 'the frame is the pfn');
      this.#at.set(table.readBigUInt64LE(i * 16 + 8), i);
    }
  }

  get frames(): number[] {
    return [...this.#at.keys()].map(Number);
  }

  page(frame: bigint): Buffer {
    const i = this.#at.get(frame);
    assert.ok(i !== undefined, `no page has frame ${frame}`);
    return this.core.read('.xen_pages', i * 4096, 4096);
  }

  /** Pages that a page table and those below it lead to. */
  mapped(frame: bigint, level: number, found = new Set<bigint>()): Set<bigint> {
    const table = this.page(frame);
    for (let at = 0; at < 4096; at += 8) {
      const entry = table.readBigUInt64LE(at);
      // Slots of the fourth level that are the hypervisor's hold no frames of the guest.
      if ((entry & 1n) === 0n || (level === 4 && at / 8 >= 256 && at / 8 <= 271)) continue;
      const next = (entry >> 12n) & ((1n << 40n) - 1n);
      if (level === 1) this.page((found.add(next), next));
      else this.mapped(next, level - 1, found);
    }
    return found;
  }
}

test('a core dump whose tables, registers and p2m agree', async (t) => {
  const stage = await setUp(t);
  const record = stage.taken[2];
  assert.ok(record);
  const source = await stage.points.imagePath(record);
  const pages = await contentsOf(source);
  const reader = await ImageReader.open(source, { lanes: 1 });
  const { state, geometry } = reader.manifest;
  reader.close();
  const { path } = await exported(stage, record.id, 'core');
  const core = new CoreDump(path);
  t.after(() => core.close());
  const inCore = new CorePages(core);
  const kept = pages.flatMap(({ type }, pfn) => (type < 0xd ? [pfn] : []));
  assert.deepEqual(inCore.frames, kept);
  for (const pfn of kept)
    if (!geometry.p2mFrames.includes(pfn))
      assert.ok(inCore.page(BigInt(pfn)).equals(pages[pfn]?.body ?? Buffer.alloc(0)), `pfn ${pfn}`);
  const there = new Set(kept);
  for (const [leaf, pfn] of geometry.p2mFrames.entries()) {
    const found = inCore.page(BigInt(pfn));
    for (let i = 0; i < 512; i++) {
      const of = leaf * 512 + i;
      const expected = there.has(of) ? BigInt(of) : 2n ** 64n - 1n;
      assert.equal(found.readBigUInt64LE(i * 8), expected, `entry ${of} of the p2m`);
    }
  }
  const contexts = core.read('.xen_prstatus');
  assert.equal(contexts.length, 2 * 5168);
  for (const { id, basic } of state.vcpus) {
    const context = contexts.subarray(id * 5168, (id + 1) * 5168);
    // User tables are marked in an image, and not in a vCPU.
    const expected = Buffer.from(basic);
    expected.writeBigUInt64LE(expected.readBigUInt64LE(4992) & ~0xfffn, 4992);
    assert.ok(context.equals(expected), `vCPU ${id}`);
    assert.ok(inCore.mapped(context.readBigUInt64LE(5008) >> 12n, 4).size > 100, 'what cr3 leads to');
  }
  assert.ok(core.read('.xen_shared_info').equals(state.sharedInfo));
  assert.match(execFileSync('readelf', ['--wide', '-h', path], { encoding: 'utf8' }), /Type: +CORE/);
});

test('points of a paused guest are exported, but for xl', async (t) => {
  const stage = await setUp(t, (host) => plainHost(host, { tracker: 'log-dirty' }));
  const { out, taken } = stage;
  const id = taken[1]?.id ?? '';
  await assert.rejects(exported(stage, id, 'xl'), { code: 'IMAGE_NOT_RESTORABLE' });
  assert.deepEqual(readdirSync(out), []);
  for (const as of ['image', 'raw', 'core', 'lime'] as const) await exported(stage, id, as);
  const { header } = await inspectImage(join(out, `${id}.image`));
  assert.equal(header?.consistency, 'paused');
});

test('by the command line; what fails leaves neither file nor lease', async (t) => {
  const { dir, out, taken, points } = await setUp(t);
  const line = (to: string, as: ExportKind) => ['guest', '--store', dir, '--to', join(out, to), '--as', as];
  for (const as of exportKinds) {
    const document = await documentOf(t, 'point export', line(as, as));
    assert.deepEqual([document.point, document.as], [taken[2]?.id, as]);
    assert.equal(document.fileBytes, statSync(join(out, as)).size);
    assert.equal(statSync(join(out, as)).mode & 0o777, 0o600);
    const before = readFileSync(join(out, as));
    await failure(t, 'OUTPUT_EXISTS', 1, ['point', 'export', ...line(as, as)]);
    assert.ok(readFileSync(join(out, as)).equals(before));
  }
  const [first] = taken;
  assert.ok(first);
  const path = await points.imagePath(first);
  const reader = await ImageReader.open(path, { lanes: 1 });
  const bytes = readFileSync(path);
  for (let chunk = 0; chunk < reader.nrChunks; chunk++)
    bytes.fill(0x5a, reader.chunk(chunk).offset + 100, reader.chunk(chunk).offset + 200);
  reader.close();
  writeFileSync(path, bytes);
  for (const as of exportKinds)
    await failure(t, 'IMAGE_DAMAGED', 12, ['point', 'export', ...line(`bad-${as}`, as)]);
  assert.deepEqual(readdirSync(out).sort(), [...exportKinds].sort());
  assert.deepEqual(readdirSync(join(dir, points.uuid, 'leases')), []);
  const { readers, writers, pageFiles } = steps().openObjects();
  assert.deepEqual([readers, writers, pageFiles], [0, 0, 0]);
});

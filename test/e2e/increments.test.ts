/** Chains of increments of running guests: each image restored and run on ends as an untouched run does. */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint, type CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { convertToXen } from '../../src/convert/to_xen.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { memoryBytesOf, totalPages } from '../../src/pfn/counts.js';
import { snapshotDowntime } from '../../src/domain/operation.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const storedPages = ({ counts }: Pick<CheckpointResult, 'counts'>): number => counts.data + counts.table;

async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; dir: string }> {
  const host = await startTestHost(t, { memoryMib: 256 });
  t.after(() => closeWorkers());
  return { host, dir: tempDir(t) };
}

async function withReader<T>(path: string, use: (reader: ImageReader) => T): Promise<T> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    return use(reader);
  } finally {
    reader.close();
  }
}

const memoryIn = (path: string): Promise<number> => withReader(path, ({ counts }) => memoryBytesOf(counts));

/** Class, type and content of every page. */
function pagesOf(path: string): Promise<string[]> {
  return withReader(path, (reader) => {
    const chunks = Array.from({ length: reader.nrChunks }, (_, chunk) => reader.readChunk(0, chunk).bodies);
    return Array.from({ length: reader.nrPfns }, (_, pfn) => {
      const { pageClass, type, chunk, slot } = reader.pageEntry(pfn);
      const bodies = pageClass === 'data' || pageClass === 'table' ? chunks[chunk] : undefined;
      const content = bodies?.toString('latin1', slot * 4096, slot * 4096 + 4096) ?? '';
      return `${pageClass} ${type} ${content}`;
    });
  });
}

/** How many pages are not the same in both. */
async function differingPages(one: string, other: string): Promise<number> {
  const pages = await pagesOf(one);
  return (await pagesOf(other)).filter((page, pfn) => page !== pages[pfn]).length;
}

/** A whole image and five increments, by turns light and cooperative; the last one is a save. */
async function takeChain(host: EmbeddedHost, dir: string): Promise<CheckpointResult[]> {
  const at = (n: number): string => join(dir, `point-${n}`);
  const taken = [await checkpoint(host, 'guest', at(0), { mode: 'light' })];
  for (let n = 1; n < 5; n++) {
    await sleep(40);
    const mode = n % 2 === 0 ? 'light' : 'cooperative';
    taken.push(await checkpoint(host, 'guest', at(n), { mode, incrementalFrom: at(n - 1) }));
  }
  const saved = await save(host, 'guest', at(5), { then: 'resume', incrementalFrom: at(4) });
  const rest = {
    mode: 'cooperative',
    consistency: 'suspend-point',
    pauseMs: 0,
    downtime: snapshotDowntime(0),
    cowPages: 0,
    copiedPages: 0,
  } as const;
  return [...taken, { ...saved, ...rest }];
}

for (const program of ['writer', 'churner', 'counter'] as const)
  test(`${program}: each image of a chain goes on as an untouched run`, async (t) => {
    const { host, dir } = await setUp(t);
    const guest: GuestPlan = { program, vcpus: 2, seed: 77, steps: 3000, rate: 2000, memoryMib: 16 };
    const untouched = await untouchedDigest(host, guest);
    await bootGuest(host, 'guest', guest);
    await sleep(40);
    const taken = await takeChain(host, dir);
    assert.equal(await finalDigest(host, 'guest', guest), untouched, 'the guest itself');
    assert.ok(taken.slice(1).some((image) => storedPages(image) > 0));
    for (const [n, image] of taken.entries()) {
      const { findings } = await verifyImage(image.path);
      assert.deepEqual(findings, []);
      const { name } = await restore(host, image.path, { paused: false });
      assert.equal(await finalDigest(host, name, guest), untouched, `image ${n}`);
      if (n === 0) continue;
      const parent = taken[n - 1]?.path ?? '';
      assert.equal(image.parent, parent);
      assert.equal(
        totalPages(image.counts) - image.counts.sameAsParent,
        await differingPages(parent, image.path),
      );
      assert.ok(image.storedBytes <= storedPages(image) * 4200 + 20 * 4096, `${image.storedBytes} bytes`);
      assert.equal(statSync(image.path).size, image.storedBytes);
      assert.equal(image.memoryBytes, await memoryIn(image.path));
    }
    assert.deepEqual(
      Object.entries(steps().openObjects()).filter(([, count]) => count > 0),
      [],
    );
  });

async function pausedGuest(host: EmbeddedHost, dir: string): Promise<string[]> {
  const guest: GuestPlan = { program: 'writer', vcpus: 1, seed: 5, steps: 0, rate: 2000, memoryMib: 16 };
  const domid = await bootGuest(host, 'guest', guest);
  await sleep(60);
  const paths = ['full', 'first', 'second'].map((name) => join(dir, name));
  const [full = '', first = '', second = ''] = paths;
  await checkpoint(host, 'guest', full, { mode: 'light' });
  await sleep(30);
  await checkpoint(host, 'guest', first, { mode: 'light', incrementalFrom: full });
  await sleep(30);
  await host.pause(domid);
  await checkpoint(host, 'guest', second, { mode: 'light', incrementalFrom: first });
  return paths;
}

test('of a guest that did nothing an increment holds nothing', async (t) => {
  const { host, dir } = await setUp(t);
  const [, , second = ''] = await pausedGuest(host, dir);
  const third = join(dir, 'third');
  const { counts, storedBytes } = await checkpoint(host, 'guest', third, {
    mode: 'light',
    incrementalFrom: second,
  });
  assert.deepEqual(
    { ...counts, sameAsParent: 0 },
    { data: 0, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 },
  );
  assert.ok(storedBytes <= 8 * 4096, `${storedBytes} bytes`);
  const { digest } = await digestDomain(host, 'guest');
  for (const image of [second, third]) assert.equal((await digestImage(image)).digest, digest);
  const reader = await ImageReader.open(third, { lanes: 1 });
  reader.close();
  assert.deepEqual([reader.header.sequence, reader.header.hasPageHashes], [3, true]);
  const seen = await inspectImage(third);
  assert.deepEqual(
    [seen.header?.sequence, seen.header?.chainId, seen.ancestors?.map(({ name }) => name)],
    [3, (await inspectImage(join(dir, 'full'))).header?.imageId, ['second']],
  );
});

test('an increment converts to a file of xl save and back as a whole image does', async (t) => {
  const { host, dir } = await setUp(t);
  const [, , second = ''] = await pausedGuest(host, dir);
  const [xl, back] = [join(dir, 'second.xl'), join(dir, 'back')];
  await convertToXen(second, xl, {});
  await convertFromXen(xl, back, {});
  const reader = await ImageReader.open(back, { lanes: 1 });
  reader.close();
  assert.equal(reader.header.parent, null);
  assert.equal((await digestImage(back)).digest, (await digestImage(second)).digest);
});

test('an ancestor that is missing, another image or damaged is named, and no domain is left', async (t) => {
  const { host, dir } = await setUp(t);
  const [full = '', first = '', second = ''] = await pausedGuest(host, dir);
  await host.destroy((await host.find('guest')).domid);
  const aside = join(dir, 'aside');
  const refused = async (code: string, path: string, what: string): Promise<void> => {
    await assert.rejects(restore(host, second, { paused: true }), (thrown: Error & { code?: string }) => {
      assert.equal(thrown.code, code, `${what}: ${thrown.message}`);
      assert.ok(thrown.message.includes(path), `${what}: ${thrown.message}`);
      return true;
    });
    assert.deepEqual(await host.list(), [], what);
  };
  for (const [ancestor, other] of [
    [first, full],
    [full, first],
  ] as const) {
    renameSync(ancestor, aside);
    await refused('IMAGE_NOT_FOUND', ancestor, 'missing');
    copyFileSync(other, ancestor);
    await refused('IMAGE_INCOMPATIBLE', ancestor, 'another image');
    copyFileSync(aside, ancestor);
    truncateSync(ancestor, statSync(ancestor).size - 4096);
    await refused('IMAGE_DAMAGED', ancestor, 'cut short');
    const bytes = readFileSync(aside);
    const chunkByte = 4096 + 100;
    bytes[chunkByte] = (bytes[chunkByte] ?? 0) ^ 1;
    writeFileSync(ancestor, bytes);
    await refused('IMAGE_DAMAGED', ancestor.slice(dir.length + 1), 'a chunk');
    renameSync(aside, ancestor);
  }
  await restore(host, second, { paused: true });
});

test('a parent that cannot be one costs the guest nothing', async (t) => {
  const { host, dir } = await setUp(t);
  const [full = ''] = await pausedGuest(host, dir);
  const elsewhere = tempDir(t);
  const other = join(elsewhere, 'key');
  const before = readdirSync(dir);
  const refused = async (path: string, parent: string, code: string): Promise<void> => {
    await assert.rejects(checkpoint(host, 'guest', path, { mode: 'light', incrementalFrom: parent }), {
      code,
    });
    assert.deepEqual(readdirSync(dir), before);
  };
  await refused(join(dir, 'x'), join(dir, 'nowhere'), 'IMAGE_NOT_FOUND');
  await refused(join(elsewhere, 'x'), full, 'OUTPUT_INVALID');
  await refused(join(dir, 'x'), import.meta.filename, 'IMAGE_DAMAGED');
  // A host that does not know who signed the parent must not sign its pages.
  const keys = process.env.DORMOUSE_KEY_DIR;
  process.env.DORMOUSE_KEY_DIR = other;
  try {
    await refused(join(dir, 'x'), full, 'IMAGE_INCOMPATIBLE');
  } finally {
    if (keys === undefined) delete process.env.DORMOUSE_KEY_DIR;
    else process.env.DORMOUSE_KEY_DIR = keys;
  }
  assert.equal((await host.find('guest')).paused, true);
  assert.equal(steps().openObjects().readers, 0);
});

/** A guest with an image and an increment of it. */
async function setUpPair(t: TestContext) {
  const { host, dir } = await setUp(t);
  await bootGuest(host, 'guest', {
    program: 'writer',
    vcpus: 1,
    seed: 5,
    steps: 0,
    rate: 2000,
    memoryMib: 16,
  });
  const at = (name: string): string => join(dir, name);
  await sleep(40);
  await checkpoint(host, 'guest', at('full'), { mode: 'light' });
  await sleep(40);
  await checkpoint(host, 'guest', at('first'), { mode: 'light', incrementalFrom: at('full') });
  return { host, dir, at };
}

/** The guest runs on, and no file is new. */
async function refused(
  host: EmbeddedHost,
  dir: string,
  saving: Promise<unknown>,
  code: string,
): Promise<void> {
  const files = readdirSync(dir).sort();
  await assert.rejects(saving, { code });
  const { shutdown, paused } = await host.find('guest');
  assert.deepEqual([shutdown, paused], [null, false]);
  assert.deepEqual(readdirSync(dir).sort(), files);
}

for (const rotten of ['full', 'first'])
  test(`no guest ends with an increment whose ancestor is damaged: ${rotten}`, async (t) => {
    const { host, dir, at } = await setUpPair(t);
    const bytes = readFileSync(at(rotten));
    bytes.writeUInt8(bytes.readUInt8(4196) ^ 1, 4196);
    writeFileSync(at(rotten), bytes);
    const saving = save(host, 'guest', at('second'), { then: 'destroy', incrementalFrom: at('first') });
    await refused(host, dir, saving, 'IMAGE_DAMAGED');
  });

for (const [how, code] of [
  ['removed', 'IMAGE_NOT_FOUND'],
  ['replaced', 'IMAGE_INCOMPATIBLE'],
] as const)
  test(`no guest ends with an increment whose parent was ${how} meanwhile`, async (t) => {
    const { host, at } = await setUpPair(t);
    const suspend = host.suspend.bind(host);
    host.suspend = (lease, timeoutMs) => {
      if (how === 'removed') rmSync(at('first'));
      else copyFileSync(at('full'), at('first'));
      return suspend(lease, timeoutMs);
    };
    const saving = save(host, 'guest', at('second'), { then: 'destroy', incrementalFrom: at('first') });
    await assert.rejects(saving, { code });
    assert.equal((await host.find('guest')).shutdown, null);
    assert.ok(!existsSync(at('second')));
  });

test('symbolic links: the ancestor is named by its own name, and folders are compared as they are', async (t) => {
  const { host, dir, at } = await setUpPair(t);
  symlinkSync('first', at('latest'));
  await checkpoint(host, 'guest', at('second'), { mode: 'light', incrementalFrom: at('latest') });
  rmSync(at('latest'));
  symlinkSync('second', at('latest'));
  const elsewhere = tempDir(t);
  mkdirSync(join(elsewhere, 'inner'));
  symlinkSync(join(elsewhere, 'inner'), at('link'));
  symlinkSync(at('second'), join(elsewhere, 'point'));
  for (const path of [at('second'), at('latest'), join(elsewhere, 'point')])
    assert.deepEqual((await verifyImage(path)).findings, [], path);
  await restore(host, join(elsewhere, 'point'), { paused: true, name: 'again' });
  const linked = { incrementalFrom: join(elsewhere, 'point') };
  await checkpoint(host, 'guest', at('by-link'), { mode: 'light', ...linked });
  assert.deepEqual((await verifyImage(at('by-link'))).findings, []);
  const outside = save(host, 'guest', `${at('link')}/../third`, {
    then: 'destroy',
    incrementalFrom: at('second'),
  });
  await refused(host, dir, outside, 'OUTPUT_INVALID');
  await save(host, 'guest', at('last'), { then: 'destroy', ...linked });
  assert.deepEqual((await verifyImage(at('last'))).findings, []);
});

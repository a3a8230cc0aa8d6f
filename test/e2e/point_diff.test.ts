/** What differs between two points of a guest, held against both images read whole and against digests. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { diffPages } from '../../src/diff/page_diff.js';
import { diffPoints, type PointDiff } from '../../src/diff/points.js';
import { digestImage } from '../../src/digest/digest.js';
import { startInfoPfn } from '../../src/domain/pv_state.js';
import { blankStartInfo } from '../../src/domain/vcpu_context.js';
import { ImageReader } from '../../src/image/reader.js';
import { pfnsOf } from '../../src/pfn/pfn_runs.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restorePoint } from '../../src/restore/from_point.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { PointRecord } from '../../src/store/record.js';
import { steps } from '../../src/worker/steps.js';
import { keepersOf } from '../../src/disks/keep.js';
import { PointStore } from '../../src/store/store.js';
import { copyingProgram, newDisk, withDisks } from '../support/disk_stage.js';
import { command, documentOf, failure } from '../support/command.js';
import { bootGuest, type GuestPlan } from '../support/guests.js';
import { contentsOf, differencesOf } from '../support/image_contents.js';
import { pointStage, type PointStage, uuidOf } from '../support/point_stage.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 43, steps: 0, rate: 1500, memoryMib: 16 };

interface Stage extends PointStage {
  readonly points: DomainPoints;
  readonly taken: readonly PointRecord[];
}

/** Five points: two chains, by two sessions. */
async function setUp(t: TestContext): Promise<Stage> {
  const stage = await pointStage(t, 128);
  await bootGuest(stage.host, 'guest', plan);
  const taken: PointRecord[] = [];
  for (const count of [3, 2]) {
    const session = await PointSession.open(stage.host, 'guest', stage.store);
    for (let i = 0; i < count; i++) {
      await sleep(30);
      taken.push((await session.take({ mode: 'light', reason: 'protect', whole: i === 0 })).record);
    }
    await session.end();
  }
  return { ...stage, taken, points: stage.store.points(await uuidOf(stage)) };
}

/** Without what two equal guests differ in. */
async function canonicalContents(path: string) {
  const reader = await ImageReader.open(path, { lanes: 1 });
  const { geometry, state } = reader.manifest;
  reader.close();
  const leaves = new Set(geometry.p2mFrames);
  const startInfo = startInfoPfn(state);
  return await contentsOf(path, (pfn, body) => {
    if (leaves.has(pfn)) body.fill(0);
    if (pfn === startInfo) blankStartInfo(body);
  });
}

async function manifestOf(path: string) {
  const reader = await ImageReader.open(path, { lanes: 1 });
  reader.close();
  return reader.manifest;
}

const pfnsByClasses = ({ pages }: Pick<PointDiff, 'pages'>): Record<string, number[]> =>
  Object.fromEntries(pages.map(({ from, to, runs }) => [`${from} ${to}`, [...pfnsOf(runs)]]));

test('of one chain and of two, both ways', async (t) => {
  const stage = await setUp(t);
  const { dir, taken, points } = stage;
  assert.equal(new Set(taken.map(({ image }) => image.chainId)).size, 2);
  const paths = await Promise.all(taken.map((record) => points.imagePath(record)));
  const contents = await Promise.all(paths.map(canonicalContents));
  for (const [i, from] of taken.entries())
    for (const [k, to] of taken.entries()) {
      const diff = await diffPoints(dir, 'guest', from.id, to.id);
      const expected = differencesOf(contents[i] ?? [], contents[k] ?? []);
      assert.deepEqual(pfnsByClasses(diff), expected, `${i} and ${k}`);
      const pages = Object.values(expected).flat().length;
      assert.deepEqual([diff.from, diff.to, diff.differingPages], [from.id, to.id, pages]);
      assert.equal(pages === 0 && diff.vcpus.length === 0, i === k);
    }
  const { readers, diffs } = steps().openObjects();
  assert.deepEqual([readers, diffs], [0, 0]);
});

test('registers are those of the two images', async (t) => {
  const { dir, taken, points } = await setUp(t);
  const [first, second] = taken;
  assert.ok(first && second);
  const states = await Promise.all(
    [first, second].map(async (one) => manifestOf(await points.imagePath(one))),
  );
  const { vcpus } = await diffPoints(dir, 'guest', first.id, second.id);
  assert.equal(vcpus.length, 2);
  for (const { vcpu, online, registers } of vcpus) {
    assert.equal(online, 'both');
    // r15 to r8, then rax, rcx, rdx, rsi, rdi: public/arch-x86/xen-x86_64.h.
    const names = 'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi'.split(' ');
    const expected = names.flatMap((name, i) => {
      const [from, to] = states.map(
        ({ state }) => state.vcpus.find(({ id }) => id === vcpu)?.basic.readBigUInt64LE(520 + 8 * i) ?? 0n,
      );
      const isAnswer = vcpu === 0 && name === 'rax';
      return from === to || isAnswer ? [] : [{ name, from, to }];
    });
    assert.ok(expected.length > 0, 'a guest at work');
    const found = registers
      .filter(({ name }) => names.includes(name))
      .map(({ name, from, to }) => ({ name, from: BigInt(from), to: BigInt(to) }));
    assert.deepEqual(found, expected);
  }
});

test('a guest restored elsewhere does not differ: frames and ports do not count', async (t) => {
  const stage = await setUp(t);
  const { host, dir, points, taken } = stage;
  const record = taken[1];
  assert.ok(record);
  await restorePoint(host, dir, 'guest', record.id, { paused: true, name: 'again' });
  const path = join(dir, '..', 'again.dmi');
  await checkpoint(host, 'again', path, { mode: 'light' });
  const [from, to] = [await points.imagePath(record), path];
  assert.equal((await digestImage(from)).digest, (await digestImage(to)).digest);
  const was = await ImageReader.open(from, { lanes: 2 });
  const is = await ImageReader.open(to, { lanes: 2 });
  t.after(() => {
    was.close();
    is.close();
  });
  const leaf = was.manifest.geometry.p2mFrames[0] ?? 0;
  assert.ok(!was.readPages([leaf]).equals(is.readPages([leaf])), 'the p2m is another one');
  assert.deepEqual(await diffPages({ from: was, to: is }), []);
});

test('by the command line, with a map', async (t) => {
  const { dir, taken } = await setUp(t);
  const map = join(dir, '..', 'map.svg');
  const line = ['guest', taken[0]?.id ?? '', '--store', dir];
  const diff = await documentOf(t, 'point diff', [...line, '--map', map]);
  assert.deepEqual([diff.from, diff.to, diff.map], [taken[0]?.id, taken[4]?.id, map]);
  const titles = [...readFileSync(map, 'utf8').matchAll(/: (\d+) of \d+<\/title>/gu)];
  assert.equal(
    titles.reduce((sum, [, pages]) => sum + Number(pages), 0),
    diff.differingPages,
  );
  const png = join(dir, '..', 'map.PNG');
  await command(t, 'point', 'diff', ...line, '--map', png);
  assert.equal(readFileSync(png).toString('latin1', 1, 4), 'PNG');
  const { stdout } = await command(t, 'point', 'diff', ...line);
  assert.match(stdout, /^from: +\S+ of guest\n[^]*differ: [^]*pfns [^]*vCPU 0: [^]*rbx 0x/u);
});

test('disks that one of the points holds are told, with what they were taken of', async (t) => {
  const { host, dir } = await pointStage(t, 128);
  await bootGuest(host, 'guest', plan);
  const { program } = copyingProgram(join(dir, '..'));
  const store = await PointStore.open(dir, { create: false, keepers: keepersOf(program) });
  const [a, b] = ['xvda', 'xvdb'].map((name) => newDisk(join(dir, '..'), name));
  assert.ok(a && b);
  const taken: string[] = [];
  for (const disks of [[a], [a, b]]) {
    const session = await PointSession.open(
      withDisks(host, () => disks),
      'guest',
      store,
    );
    const way = { kind: 'command', program } as const;
    taken.push((await session.take({ mode: 'light', reason: 'protect', disks: way })).record.id);
    await session.end();
  }
  const [from = '', to = ''] = taken;
  const { disks, links } = await documentOf(t, 'point diff', ['guest', from, to, '--store', dir]);
  const told = ({ path }: { path: string }) => ({ path, bytes: statSync(path).size, kind: 'command' });
  assert.deepEqual(disks, [
    { name: 'xvda', from: told(a), to: told(a) },
    { name: 'xvdb', from: null, to: told(b) },
  ]);
  assert.deepEqual(links, {
    ...{ heldBy: 'none', unfit: { from: null, to: null } },
    ...{ devices: [], ports: [], ringPfns: [], other: [] },
  });
});

test('what fails leaves no map and no lease', async (t) => {
  const { dir, taken, points } = await setUp(t);
  const [, , before, , last] = taken;
  assert.ok(before && last);
  const map = join(dir, '..', 'map.svg');
  const line = ['point', 'diff', 'guest', taken[0]?.id ?? '', '--store', dir, '--map'];
  const path = await points.imagePath(last);
  const bytes = readFileSync(path);
  bytes.fill(0xff, bytes.length - 4000);
  writeFileSync(path, bytes);
  await failure(t, 'STORE_DAMAGED', 12, [...line, map]);
  assert.ok(!existsSync(map));
  writeFileSync(map, 'mine');
  await failure(t, 'OUTPUT_EXISTS', 1, [...line, map]);
  assert.equal(readFileSync(map, 'utf8'), 'mine');
  await failure(t, 'POINT_NOT_FOUND', 10, ['point', 'diff', 'guest', '2020', '--store', dir]);
  const same = await command(t, 'point', 'diff', 'guest', before.id, before.id, '--store', dir);
  assert.match(same.stdout, /differ: +0 of /u);
  assert.deepEqual(readdirSync(join(dir, points.uuid, 'leases')), []);
});

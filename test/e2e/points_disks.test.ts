/** Points that hold disks: what a guest's disk was at that instant is kept, put back, and goes with the point. */
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { keepersOf } from '../../src/disks/keep.js';
import { type DiskWay, noDisks } from '../../src/disks/way.js';
import type { DomainDisk, Host, Lease } from '../../src/host/contract.js';
import { PointSession, type PointOptions } from '../../src/protect/point_session.js';
import {
  type PointRestoreOptions,
  type PointRestoreResult,
  restorePoint,
} from '../../src/restore/from_point.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import { rollback } from '../../src/rollback/rollback.js';
import type { DomainPoints } from '../../src/store/domain_points.js';
import type { PointRecord } from '../../src/store/record.js';
import { PointStore } from '../../src/store/store.js';
import { verifyPoints } from '../../src/store/by_name.js';
import { closeWorkers } from '../../src/worker/pool.js';
import {
  copyingProgram,
  diskBytes,
  filledWith,
  mountXfs,
  newDisk,
  noXfs,
  withDisks,
} from '../support/disk_stage.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { withCalls } from '../support/with_calls.js';

const plan: GuestPlan = { program: 'churner', vcpus: 1, seed: 7, steps: 2000, rate: 1500, memoryMib: 8 };

interface Stage {
  readonly host: Host;
  readonly folder: string;
  readonly disk: DomainDisk;
  readonly way: DiskWay;
  readonly dir: string;
  readonly points: DomainPoints;
  readonly notices: string[];
  readonly finish: () => Promise<void>;
}

async function stageIn(t: TestContext, dir: string, way: DiskWay): Promise<Stage> {
  const embedded = await startTestHost(t, { memoryMib: 64 });
  t.after(closeWorkers);
  const untouched = await untouchedDigest(embedded, plan);
  const domid = await bootGuest(embedded, 'guest', plan);
  const disk = newDisk(dir, 'xvda');
  const readOnly: DomainDisk = { ...newDisk(dir, 'xvdb'), writable: false };
  const host = withDisks(embedded, () => [disk, readOnly]);
  const folder = join(dir, 'store');
  const keepers = keepersOf(way.kind === 'command' ? way.program : null);
  const store = await PointStore.open(folder, { create: true, keepers });
  const { uuid } = await embedded.info(domid);
  const finish = async (): Promise<void> =>
    assert.equal(await finalDigest(embedded, 'guest', plan), untouched);
  return { host, folder, disk, way, dir, points: store.points(uuid), notices: [], finish };
}

async function take(stage: Stage, options: Partial<PointOptions> = {}): Promise<PointRecord> {
  const { host, folder, way, notices } = stage;
  const keepers = keepersOf(way.kind === 'command' ? way.program : null);
  const store = await PointStore.open(folder, { create: true, keepers });
  const session = await PointSession.open(host, 'guest', store, (text) => notices.push(text));
  try {
    await sleep(20);
    return (await session.take({ mode: 'light', reason: 'protect', disks: way, ...options })).record;
  } finally {
    await session.end();
  }
}

const disksFolder = ({ folder, points }: Stage): string[] => {
  const path = join(folder, points.uuid, 'disks');
  return existsSync(path) ? readdirSync(path).sort() : [];
};

const ways: readonly (readonly [
  string,
  string | false,
  (t: TestContext) => { dir: string; way: DiskWay },
])[] = [
  ['reflink', noXfs, (t) => ({ dir: mountXfs(t).dir, way: { kind: 'reflink' } })],
  [
    'a command',
    false,
    (t) => {
      const dir = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
      t.after(() => rmSync(dir, { recursive: true, force: true }));
      mkdirSync(join(dir, 'kept'));
      return { dir, way: { kind: 'command', program: copyingProgram(join(dir, 'kept')).program } };
    },
  ],
];

for (const [title, skip, place] of ways) {
  const begin = async (t: TestContext): Promise<Stage> => {
    const { dir, way } = place(t);
    return await stageIn(t, dir, way);
  };

  for (const mode of ['light', 'cooperative'] as const)
    test(`${title}, ${mode}: back to a point with its disk, and to what was before`, { skip }, async (t) => {
      const stage = await begin(t);
      const { host, folder, disk, way } = stage;
      const { ino } = statSync(disk.path);
      const first = await take(stage, { mode });
      assert.ok(first.disks.kind !== 'none' && first.disks.kind === way.kind && first.version === 2);
      assert.deepEqual(
        first.disks.disks.map(({ name, path, bytes }) => [name, path, bytes]),
        [['xvda', disk.path, diskBytes]],
      );
      assert.ok(first.disks.tookMs > 0 && first.pauseMs >= first.disks.tookMs, 'the disk is of the pause');
      writeFileSync(disk.path, filledWith('later'), { flag: 'r+' });
      const second = await take(stage, { mode });
      writeFileSync(disk.path, filledWith('last'), { flag: 'r+' });
      const options = { safety: true, ...(way.kind === 'command' && { disks: way }) };
      const back = await rollbackToPoint(host, 'guest', folder, first.id, options);
      assert.deepEqual(back.disks, ['xvda']);
      assert.ok(readFileSync(disk.path).equals(filledWith('at first')));
      assert.equal(statSync(disk.path).ino, ino, 'who has it open goes on with it');
      await rollbackToPoint(host, 'guest', folder, back.safetyPoint ?? '', { ...options, safety: false });
      assert.ok(readFileSync(disk.path).equals(filledWith('last')));
      await rollbackToPoint(host, 'guest', folder, second.id, { ...options, safety: false });
      assert.ok(readFileSync(disk.path).equals(filledWith('later')));
      assert.equal(disksFolder(stage).length, 3);
      await stage.finish();
    });

  test(`${title}: a disk goes with its point, and is missed where it went before`, { skip }, async (t) => {
    const stage = await begin(t);
    const { points, way, folder } = stage;
    const [first, second] = [await take(stage), await take(stage)];
    const program = way.kind === 'command' ? { program: way.program } : {};
    const report = await verifyPoints(folder, points.uuid, { readData: false, ...program });
    assert.deepEqual([report.findings, report.disks], [[], 2]);
    const { removedDisks, stuck } = await points.prune({}, { also: [first.id] });
    assert.deepEqual([removedDisks.length, stuck], [1, []]);
    assert.equal(disksFolder(stage).length, 1);
    assert.deepEqual(await points.collect(), { removed: [], freedBytes: 0, removedDisks: [], stuck: [] });
    const [held] = await points.heldDisks(second);
    assert.ok(held);
    if (way.kind === 'command') unlinkSync(join(stage.dir, 'kept', held.disk.where));
    else truncateSync(held.file, 5);
    const { findings } = await verifyPoints(folder, points.uuid, { readData: false, ...program });
    assert.deepEqual([findings.length, findings[0]?.point], [1, second.id]);
    const options = { safety: false, ...(way.kind === 'command' && { disks: way }) };
    await assert.rejects(rollbackToPoint(stage.host, 'guest', folder, second.id, options), {
      code: way.kind === 'command' ? 'COMMAND_FAILED' : 'STORE_DAMAGED',
      guest: 'untouched',
    });
    await stage.finish();
  });

  test(
    `${title}: a new domain gets new disks of the point, or is said to go on with the old ones`,
    { skip },
    async (t) => {
      const stage = await begin(t);
      const { folder, points, way, dir, disk } = stage;
      const { id } = await take(stage);
      writeFileSync(disk.path, filledWith('later'), { flag: 'r+' });
      const given: ReadonlyMap<string, string>[] = [];
      const host = withCalls(stage.host, {
        configWithDisks: (config: string, disks: ReadonlyMap<string, string>) => {
          given.push(disks);
          return config;
        },
      });
      const program = way.kind === 'command' ? { program: way.program } : {};
      const common = { paused: true, name: 'clone', trustConfig: true, ...program };
      const restored = (more: Partial<PointRestoreOptions>): Promise<PointRestoreResult> =>
        restorePoint(host, folder, points.uuid, id, { ...common, ...more });
      await assert.rejects(restored({}), { code: 'USAGE', message: /holds disks/u });
      const kept = await restored({ keepDisks: true });
      assert.deepEqual([kept.disks, given], [[], []]);
      await host.destroy(kept.domid);
      const path = join(dir, 'clone.xvda.raw');
      const { disks, domid } = await restored({ diskDir: dir });
      assert.deepEqual([disks, [...(given[0] ?? [])]], [[path], [['xvda', path]]]);
      assert.ok(readFileSync(path).equals(filledWith('at first')));
      assert.ok(readFileSync(disk.path).equals(filledWith('later')));
      await assert.rejects(restored({ diskDir: dir, name: 'clone' }), { code: 'OUTPUT_EXISTS' });
      assert.ok(existsSync(path), "it is the clone's");
      await assert.rejects(restored({ diskDir: dir, name: 'guest' }), {
        code: 'DOMAIN_EXISTS',
        guest: 'none',
      });
      assert.ok(!existsSync(join(dir, 'guest.xvda.raw')), 'the disk of a domain that there is not');
      await host.destroy(domid);
      await stage.finish();
    },
  );

  test(`${title}: other disks than those of the point are not put back`, { skip }, async (t) => {
    const stage = await begin(t);
    const { folder, disk, way } = stage;
    const { id } = await take(stage);
    const options = { safety: false, ...(way.kind === 'command' && { disks: way }) };
    const rolling = (disks: readonly DomainDisk[]): Promise<unknown> =>
      rollbackToPoint(
        { ...stage, host: withDisks(stage.host as never, () => disks) }.host,
        'guest',
        folder,
        id,
        options,
      );
    const other = newDisk(stage.dir, 'xvdc');
    for (const [disks, why] of [
      [[], /xvda is gone/u],
      [[{ ...disk, writable: false }], /not written to any more/u],
      [[disk, other], /xvdc is new/u],
      [[{ ...disk, path: other.path }], /xvda is .*xvdc.img, and was/u],
    ] as const)
      await assert.rejects(rolling(disks), { code: 'HOST_LACKS', message: why, guest: 'untouched' });
    truncateSync(disk.path, diskBytes + 4096);
    await assert.rejects(rolling([disk]), { message: /xvda has 3149824 bytes, and had 3145728/u });
    await stage.finish();
  });
}

test(
  'a loop device over the file shows what was put back, whatever was cached of it',
  { skip: noXfs },
  async (t) => {
    const xfs = mountXfs(t);
    const stage = await stageIn(t, xfs.dir, { kind: 'reflink' });
    const { disk, folder, host } = stage;
    const device = xfs.loopDevice(disk.path);
    const { id } = await take(stage);
    writeFileSync(device, filledWith('by loop'), { flag: 'r+' });
    const open = openSync(device, 'r');
    const start = (): string => {
      const bytes = Buffer.alloc(16);
      readSync(open, bytes, 0, 16, 0);
      return bytes.toString().replaceAll('.', '');
    };
    assert.equal(start(), 'by loop');
    await rollbackToPoint(host, 'guest', folder, id, { safety: false });
    assert.equal(start(), 'at first');
    closeSync(open);
    assert.ok(readFileSync(disk.path).equals(filledWith('at first')), 'what was cached was written later');
    await stage.finish();
  },
);

test('a store on another file system is refused before anything is begun', { skip: noXfs }, async (t) => {
  const stage = await stageIn(t, mountXfs(t).dir, { kind: 'reflink' });
  const elsewhere = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
  t.after(() => rmSync(elsewhere, { recursive: true, force: true }));
  const other = { ...stage, folder: join(elsewhere, 'store') };
  await assert.rejects(take(other), {
    code: 'HOST_LACKS',
    guest: 'untouched',
    message: /xvda: .* cannot share blocks/u,
  });
  assert.deepEqual(disksFolder(other), []);
  await assert.rejects(take({ ...stage, way: { kind: 'lvm-thin' } }), {
    code: 'HOST_LACKS',
    message: /no thin volume/u,
  });
  await stage.finish();
});

test('without a way the disks are not in the point, which is told; it is not gone back to as if they were', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const stage = await stageIn(t, dir, noDisks);
  const { host, folder, points, notices } = stage;
  const record = await take(stage);
  assert.deepEqual([record.disks, record.version], [{ kind: 'none' }, 1]);
  assert.deepEqual(notices, ['no point holds what is written to xvda: see --disks']);
  const refused = {
    code: 'HOST_LACKS',
    guest: 'untouched',
    message: /^xvda of guest is written to/u,
  } as const;
  await assert.rejects(rollbackToPoint(host, 'guest', folder, record.id, { safety: true }), refused);
  await assert.rejects(rollback(host, 'guest', await points.imagePath(record)), refused);
  const back = await rollbackToPoint(host, 'guest', folder, record.id, { safety: true, keepDisks: true });
  assert.deepEqual(back.disks, []);
  await stage.finish();
});

test('a program that fails: there is no such point, the guest runs on, and nothing is left', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const { program, log } = copyingProgram(dir);
  const stage = await stageIn(t, dir, { kind: 'command', program });
  const { host, folder, points, disk } = stage;
  const { id } = await take(stage);
  writeFileSync(join(dir, 'fails'), '');
  await assert.rejects(take(stage), (thrown: { code: string; message: string; details: string[] }) => {
    assert.equal(thrown.code, 'COMMAND_FAILED');
    assert.match(thrown.message, /keeper take .* ended with 3: out of tape$/u);
    return true;
  });
  assert.deepEqual(await points.ids(), [id]);
  assert.equal((await host.find('guest')).paused, false);
  assert.equal(disksFolder(stage).length, 2, 'what could not be forgotten is known of');
  const { stuck } = await points.collect();
  assert.match(stuck.join(), /out of tape/u);
  rmSync(join(dir, 'fails'));
  assert.equal((await points.collect()).removedDisks.length, 1);
  const [, domain, device, path, where] = readFileSync(log, 'utf8').split('\n')[0]?.split(' ') ?? [];
  assert.deepEqual([domain, device, path], [points.uuid, 'xvda', disk.path]);
  assert.equal(where, `dormouse-${points.uuid}-${id}-xvda`);
  const unnamed = (await PointStore.open(folder, { create: false })).points(points.uuid);
  assert.match((await unnamed.prune({}, { also: [id] })).stuck.join(), /Say which one it is/u);
  assert.equal(disksFolder(stage).length, 1);
  assert.equal((await points.collect()).removedDisks.length, 1);
  assert.deepEqual(readdirSync(dir).sort(), ['keeper', 'log', 'store', 'xvda.img', 'xvdb.img']);
  await stage.finish();
});

const withRelease = (lease: Lease, release: Lease['release']): Lease =>
  new Proxy(lease, {
    get: (target, key): unknown => (key === 'release' ? release : Reflect.get(target, key, target)),
  });

/** A guest with a disk that a program keeps. */
async function commanded(t: TestContext): Promise<Stage & { readonly log: () => string[] }> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const { program, log } = copyingProgram(dir);
  const stage = await stageIn(t, dir, { kind: 'command', program });
  const asked = (line: string): string => line.split(' ')[0] ?? '';
  return { ...stage, log: () => readFileSync(log, 'utf8').split('\n').map(asked) };
}

test('disks are not put back under another domain, nor where nothing would have them as they are', async (t) => {
  const stage = await commanded(t);
  const { host, folder, way } = stage;
  const { id } = await take(stage);
  const shared = withCalls(host, {
    sharedDisks: () => Promise.resolve([{ code: 'DISK_IN_USE', message: 'xvda is of domain 9, too' }]),
  });
  await assert.rejects(rollbackToPoint(shared, 'guest', folder, id, { safety: false, disks: way }), {
    code: 'DISK_IN_USE',
    guest: 'untouched',
  });
  await assert.rejects(rollbackToPoint(host, 'guest', folder, id, { safety: true, disks: noDisks }), {
    ...{ code: 'USAGE', guest: 'untouched' },
    message: /would not hold what is in them now/u,
  });
  assert.deepEqual(await stage.points.ids(), [id]);
  await stage.finish();
});

test('a point whose disks another tool is about to remove is not gone back to', async (t) => {
  const stage = await commanded(t);
  const { host, folder, points, way } = stage;
  const { id } = await take(stage);
  const stone = join(folder, points.uuid, 'tombstones', `${id}.xvda.json~1-1-1~0123456789ab`);
  mkdirSync(join(folder, points.uuid, 'tombstones'), { recursive: true });
  writeFileSync(stone, '{"version":1}');
  for (const safety of [false, true])
    await assert.rejects(rollbackToPoint(host, 'guest', folder, id, { safety, disks: way }), {
      ...{ code: 'POINT_NOT_FOUND', guest: 'untouched' },
    });
  unlinkSync(stone);
  assert.ok(!stage.log().includes('put-back'));
  await rollbackToPoint(host, 'guest', folder, id, { safety: true, disks: way });
  await stage.finish();
});

test('a note that is of another disk, or is none, is left alone and told of; the others go', async (t) => {
  const stage = await commanded(t);
  const { points, folder } = stage;
  const [first, second, third] = [await take(stage), await take(stage), await take(stage)];
  const note = (id: string): string => join(folder, points.uuid, 'disks', `${id}.xvda.json`);
  const whole = readFileSync(note(first.id), 'utf8');
  writeFileSync(note(first.id), readFileSync(note(second.id)));
  writeFileSync(note(second.id), whole.slice(0, 20));
  const fourth = await take(stage);
  // Of that point, but of another disk than its name says.
  writeFileSync(note(fourth.id), readFileSync(note(fourth.id), 'utf8').replaceAll('xvda"', 'xvdb"'));
  const { removedDisks, stuck, removed } = await points.prune(
    {},
    { also: [first.id, second.id, third.id, fourth.id] },
  );
  assert.deepEqual(removedDisks, [`${third.id}.xvda.json`]);
  assert.equal(removed.length, 4);
  assert.match(stuck.join('\n'), /none that dormouse kept for it[^]*cannot be read/u);
  assert.match(stuck.join('\n'), /is the note of another disk/u);
  assert.equal(stage.log().filter((action) => action === 'forget').length, 1);
  await stage.finish();
});

test('what stands against a restore is told before disks are copied, and a domain that is there keeps them', async (t) => {
  const stage = await commanded(t);
  const { folder, points, dir, way } = stage;
  const { id } = await take(stage);
  const host = withCalls(stage.host, { configWithDisks: (config: string) => config });
  assert.ok(way.kind === 'command');
  const restored = (over: Host, name: string): Promise<PointRestoreResult> =>
    restorePoint(over, folder, points.uuid, id, {
      ...{ paused: true, name, trustConfig: true, program: way.program, diskDir: dir },
    });
  await assert.rejects(restored(host, 'guest'), { code: 'DOMAIN_EXISTS', guest: 'none' });
  assert.ok(!stage.log().includes('put-back') && !existsSync(join(dir, 'guest.xvda.raw')));
  const kept = join(dir, `dormouse-${points.uuid}-${id}-xvda`);
  renameSync(kept, `${kept}.away`);
  await assert.rejects(restored(host, 'clone'), { code: 'COMMAND_FAILED' });
  assert.ok(!stage.log().includes('put-back') && !existsSync(join(dir, 'clone.xvda.raw')));
  renameSync(`${kept}.away`, kept);
  for (const name of ['../away', '.hidden', 'a/b'])
    await assert.rejects(restored(host, name), { code: 'USAGE', message: /no disk can be called after/u });
  assert.ok(!existsSync(join(dir, '../away.xvda.raw')));
  const build: Host['build'] = async (spec) => {
    const { lease, builder } = await stage.host.build(spec);
    const release = async (): Promise<void> => {
      await lease.release();
      throw new Error('the connection went');
    };
    return { builder, lease: withRelease(lease, release) };
  };
  const { disks, domid } = await restored(withCalls(host, { build }), 'clone');
  assert.ok(existsSync(disks[0] ?? '') && (await host.info(domid)).name === 'clone');
  await stage.finish();
});

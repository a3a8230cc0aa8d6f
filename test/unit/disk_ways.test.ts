/** How disks are kept: what users say, programs that fail, volumes that are not ours; and where Xen says that disks are. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fault, forget, type Keepers, type OfPoint, putBack } from '../../src/disks/keep.js';
import { keptDisks, outsideName } from '../../src/disks/kept.js';
import { lvmBytes, lvmForget } from '../../src/disks/lvm.js';
import { run, type Run } from '../../src/disks/run.js';
import { parseDiskWay } from '../../src/disks/way.js';
import { DormouseError } from '../../src/errors.js';
import type { DomainDisk, Obstacle, Xenstore } from '../../src/host/contract.js';
import { configWithDisks as embeddedWithDisks } from '../../src/host/embedded/new_disks.js';
import { domainDisks, sharedDisks } from '../../src/host/xen/disks.js';
import { configWithDisks } from '../../src/host/xen/new_disks.js';
import { noXfs } from '../support/disk_stage.js';
import { until } from '../support/hosts.js';

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/u.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

const uuid = '11111111-2222-4333-8444-555555555555';

test('what a user says', () => {
  assert.deepEqual(parseDiskWay('reflink'), { kind: 'reflink' });
  assert.deepEqual(parseDiskWay('lvm-thin'), { kind: 'lvm-thin' });
  assert.deepEqual(parseDiskWay('none'), { kind: 'none' });
  assert.deepEqual(parseDiskWay('command:/bin/a b'), { kind: 'command', program: '/bin/a b' });
  assert.deepEqual(parseDiskWay('command:keeper'), {
    kind: 'command',
    program: join(process.cwd(), 'keeper'),
  });
  for (const wrong of ['', 'command:', 'command', 'Reflink', 'zfs'])
    assert.throws(() => parseDiskWay(wrong), { code: 'USAGE' }, wrong);
});

test('a program that fails is told with what it said', () => {
  const options = { timeoutMs: 30_000, env: { WORD: 'said' } };
  assert.equal(run('/bin/sh', ['-c', 'echo $WORD'], options), 'said\n');
  const failed = (script: string, message: RegExp, timeoutMs = 30_000): void =>
    assert.throws(() => run('/bin/sh', ['-c', script], { timeoutMs }), { code: 'COMMAND_FAILED', message });
  failed('echo one >&2; echo two >&2; exit 4', /ended with 4: two$/u);
  failed("echo no >&2; echo '  Run `x --help` for more.' >&2; exit 3", /ended with 3: no$/u);
  failed('kill -TERM $$', /was killed by SIGTERM$/u);
  failed('exec sleep 1000', /did not end within 0.05 s and was killed$/u, 50);
  assert.throws(() => run('/no/such/program', [], options), {
    code: 'COMMAND_FAILED',
    message: /cannot be run/u,
  });
});

test('a program that takes too long is killed with what it started, or ends when it can', async (t) => {
  const { dir } = filesIn(t);
  const [pid, done] = [join(dir, 'pid'), join(dir, 'done')];
  const takesLong = `sleep 1000 & echo $! >${pid}; wait`;
  assert.throws(() => run('/bin/sh', ['-c', takesLong], { timeoutMs: 500 }), { code: 'COMMAND_FAILED' });
  const started = Number(readFileSync(pid, 'utf8'));
  await until('what it started has ended', 30_000, () => Promise.resolve(!lives(started)));
  const ends = `trap 'sleep 0.5; kill $!; echo late; echo late >&2; echo >${done}; exit 1' TERM; sleep 1000 & wait`;
  assert.throws(() => run('/bin/sh', ['-c', ends], { timeoutMs: 500, waits: true }), {
    message: /did not end within 0.5 s and was ended: late$/u,
  });
  assert.ok(existsSync(done), 'it was waited for');
  const group = run('/bin/sh', ['-c', 'cut -d" " -f5 /proc/$$/stat; echo $$'], { timeoutMs: 30_000 });
  const [ofGroup, own] = group.trim().split('\n');
  assert.equal(ofGroup, own, 'a Ctrl-C in the terminal is not for it');
});

/** Volumes that there are, by group, and what was asked of LVM. */
function volumes(there: Readonly<Record<string, readonly string[]>>): { run: Run; asked: string[] } {
  const asked: string[] = [];
  const lvm: Run = (program, args) => {
    asked.push(program);
    const names = there[(args.at(-1) ?? '').split('/')[0] ?? ''];
    if (!names) throw new DormouseError('COMMAND_FAILED', 'Volume group not found');
    return names.map((name) => `  ${name}/4096\n`).join('');
  };
  return { run: lvm, asked };
}

const volume = (where: string) => ({ name: 'xvda', path: '/dev/dm-1', bytes: 4096, where });
const point = '20260101-000000.000';
const own = outsideName(uuid, point, 'xvda');

test('a disk is not put back from or to what has another size', async (t) => {
  const { file } = filesIn(t);
  const [disk, kept] = [file('disk'), file('kept')];
  const of = (bytes: number): OfPoint => ({
    ...{ kind: 'reflink', domain: uuid, point, disk: { ...volume('kept'), bytes } },
  });
  const keepers = { run, program: null };
  await assert.rejects(putBack(keepers, of(5), disk, kept), {
    code: 'STORE_DAMAGED',
    message: /has 4 bytes/u,
  });
  truncateSync(disk, 5);
  await assert.rejects(putBack(keepers, of(4), disk, kept), {
    code: 'HOST_LACKS',
    message: /has 5 bytes now/u,
  });
  symlinkSync(kept, `${kept}.link`);
  await assert.rejects(putBack(keepers, of(4), disk, `${kept}.link`), { code: 'ELOOP' });
  assert.equal(readFileSync(disk, 'latin1'), 'disk\0');
});

test('a volume is removed where it is, and not taken for gone where its group is not seen', () => {
  const { run: lvm, asked } = volumes({ vg: ['root', own], empty: [] });
  assert.equal(lvmBytes(lvm, volume(`vg/${own}`)), 4096);
  lvmForget(lvm, volume(`vg/${own}`));
  assert.deepEqual(asked, ['lvs', 'lvs', 'lvremove']);
  lvmForget(lvm, volume(`empty/${own}`));
  assert.throws(() => lvmForget(lvm, volume(`unseen/${own}`)), { code: 'COMMAND_FAILED' });
  assert.deepEqual(asked.slice(3), ['lvs', 'lvs']);
});

test('nothing but what was kept for that disk of that point is touched, whatever a record says', async () => {
  const ran: string[] = [];
  const keepers: Keepers = {
    run: (program) => ran.splice(0, 0, program).join(''),
    program: '/bin/true',
  };
  const of = (kind: OfPoint['kind'], where: string): OfPoint => ({
    ...{ kind, domain: uuid, point, disk: volume(where) },
  });
  const other = uuid.replace('1', '2');
  const foreign = ['root', outsideName(uuid, point, 'xvdb'), outsideName(other, point, 'xvda')];
  const wrong = [...foreign, outsideName(uuid, '20260101-000000.001', 'xvda')];
  for (const [kind, before] of [
    ['command', ''],
    ['lvm-thin', 'vg/'],
  ] as const)
    for (const where of [
      ...wrong.map((name) => before + name),
      `${before}x/${own}`,
      `../${own}`,
      `-f/${own}`,
    ]) {
      const bad = { code: 'STORE_DAMAGED', message: /none that dormouse kept for it/u };
      assert.throws(() => forget(keepers, of(kind, where)), bad, where);
      await assert.rejects(putBack(keepers, of(kind, where), '/dev/null', ''), bad, where);
      await assert.rejects(fault(keepers, of(kind, where), ''), bad, where);
    }
  assert.deepEqual(ran, []);
  assert.throws(() => forget({ ...keepers, program: null }, of('command', own)), { code: 'USAGE' });
  forget(keepers, of('command', own));
  assert.deepEqual(ran, ['/bin/true']);
  const sized = (bytes: number): Promise<string | null> =>
    fault({ ...keepers, run: () => `${own}/${bytes}` }, of('lvm-thin', `vg/${own}`), '');
  assert.deepEqual([await sized(4096), /has 8192 bytes/u.test((await sized(8192)) ?? '')], [null, true]);
});

test('what a record may say of disks', () => {
  const kept = { kind: 'reflink', program: null, tookMs: 1, disks: [volume('20260101-000000.000.xvda.raw')] };
  assert.ok(keptDisks.safeParse(kept).success && keptDisks.safeParse({ kind: 'none' }).success);
  for (const wrong of [
    { ...kept, kind: 'zfs' },
    { ...kept, disks: undefined },
    { ...kept, disks: [{ ...volume('a'), name: '../xvda' }] },
    { ...kept, disks: [{ ...volume('a'), path: 'relative' }] },
    { ...kept, disks: [{ ...volume('-a') }] },
    { ...kept, disks: [{ ...volume('a'), bytes: -1 }] },
  ])
    assert.ok(!keptDisks.safeParse(wrong).success, JSON.stringify(wrong));
});

function storeOf(nodes: Readonly<Record<string, string>>): Xenstore {
  const part = {
    read: (path: string) => Promise.resolve(nodes[path] ?? null),
    list: (path: string) => {
      const below = Object.keys(nodes).filter((node) => node.startsWith(`${path}/`));
      return Promise.resolve([
        ...new Set(below.map((node) => node.slice(path.length + 1).split('/')[0] ?? '')),
      ]);
    },
  };
  return part as unknown as Xenstore;
}

function backend(kind: string, id: number, nodes: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(nodes).map(([name, value]) => [`/local/domain/0/backend/${kind}/7/${id}/${name}`, value]),
  );
}

function filesIn(t: TestContext): { dir: string; file: (name: string) => string } {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'dormouse-disks-')));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const file = (name: string): string => {
    writeFileSync(join(dir, name), 'disk');
    return join(dir, name);
  };
  return { dir, file };
}

test('the disks of a domain on Xen are what its backends say', async (t) => {
  const { dir, file } = filesIn(t);
  const first = file('first');
  symlinkSync(first, join(dir, 'link'));
  const nodes = {
    ...backend('vbd', 51728, { dev: 'xvdb', params: file('second'), mode: 'r' }),
    ...backend('vbd', 51712, { dev: 'xvda', params: join(dir, 'link'), mode: 'w' }),
    ...backend('vbd', 51744, { dev: 'xvdc', params: '', mode: 'r' }),
  };
  assert.deepEqual(await domainDisks(storeOf(nodes), 7), [
    { name: 'xvda', path: first, kind: 'file', writable: true },
    { name: 'xvdb', path: join(dir, 'second'), kind: 'file', writable: false },
  ]);
  assert.deepEqual(await domainDisks(storeOf(nodes), 8), []);
  const gone = backend('vbd', 1, { dev: 'xvda', params: join(dir, 'gone'), mode: 'w' });
  await assert.rejects(domainDisks(storeOf(gone), 7), {
    code: 'HOST_LACKS',
    message: /xvda: .*gone is not there/u,
  });
  const served = backend('qdisk', 51712, { dev: 'xvda', params: `aio:${first}`, mode: 'w' });
  await assert.rejects(domainDisks(storeOf(served), 7), { code: 'HOST_LACKS', message: /qdisk serves/u });
});

test('a disk that another domain has is told of, however it has it', async (t) => {
  const { dir, file } = filesIn(t);
  const first = file('first');
  symlinkSync(first, join(dir, 'link'));
  const at = (kind: string, domid: number, nodes: Readonly<Record<string, string>>) =>
    Object.fromEntries(
      Object.entries(nodes).map(([name, value]) => [
        `/local/domain/0/backend/${kind}/${domid}/1/${name}`,
        value,
      ]),
    );
  const mine = at('vbd', 7, { dev: 'xvda', params: first, mode: 'w' });
  const shared = (other: Record<string, string>, there = [7, 8]): Promise<readonly Obstacle[]> =>
    sharedDisks(storeOf({ ...mine, ...other }), 7, new Set(there));
  const served = at('qdisk', 8, { dev: 'xvdb', params: `aio:${join(dir, 'link')}`, mode: 'r' });
  const message = `disk xvda: ${first} is xvdb of domain 8, too`;
  assert.deepEqual(await shared(served), [{ code: 'DISK_IN_USE', message }]);
  assert.deepEqual(await shared(served, [7]), []);
  assert.deepEqual(await shared(at('vbd', 8, { dev: 'xvda', params: file('second'), mode: 'w' })), []);
  const readOnly = storeOf({ ...at('vbd', 7, { dev: 'xvda', params: first, mode: 'r' }), ...served });
  assert.deepEqual(await sharedDisks(readOnly, 7, new Set([7, 8])), []);
});

test('a loop device that shows a part of a file is no such file', { skip: noXfs }, async (t) => {
  const { file } = filesIn(t);
  const path = file('disk');
  truncateSync(path, 1 << 20);
  const loop = (...how: string[]): string => {
    const device = spawnSync('losetup', ['--find', '--show', ...how, path], {
      encoding: 'utf8',
    }).stdout.trim();
    t.after(() => spawnSync('losetup', ['--detach', device]));
    return device;
  };
  const disksAt = (params: string): Promise<readonly DomainDisk[]> =>
    domainDisks(storeOf(backend('vbd', 51712, { dev: 'xvda', params, mode: 'w' })), 7);
  assert.deepEqual(await disksAt(loop()), [{ name: 'xvda', path, kind: 'file', writable: true }]);
  for (const how of [
    ['--offset', '4096'],
    ['--sizelimit', '8192'],
  ])
    await assert.rejects(disksAt(loop(...how)), { code: 'HOST_LACKS', message: /shows a part of/u });
});

test('a configuration with other disks', () => {
  const disk = { pdev_path: '/a', vdev: 'xvda', readwrite: 1, script: '/s' };
  const config = JSON.stringify({ c_info: { name: 'g' }, disks: [{ vdev: 'xvdb', pdev_path: '/b' }, disk] });
  assert.deepEqual(JSON.parse(configWithDisks(config, new Map([['xvda', '/new']]))), {
    c_info: { name: 'g' },
    disks: [
      { vdev: 'xvdb', pdev_path: '/b' },
      { vdev: 'xvda', readwrite: 1, pdev_path: '/new', format: 'raw' },
    ],
  });
  const own = JSON.stringify({ program: 'idle', disks: [{ file: '/a', readOnly: false }] });
  assert.deepEqual(JSON.parse(embeddedWithDisks(own, new Map([['xvda', '/new']]))), {
    program: 'idle',
    disks: [{ file: '/new', readOnly: false }],
  });
  for (const give of [configWithDisks, embeddedWithDisks])
    assert.throws(() => give('{}', new Map([['xvda', '/new']])), {
      code: 'CONFIG_INVALID',
      message: /no disk xvda/u,
    });
  assert.throws(() => configWithDisks('no JSON', new Map()), { code: 'CONFIG_INVALID' });
});

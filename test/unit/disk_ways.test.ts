/** How disks are kept: what users say, programs that fail, volumes that are not ours; and where Xen says that disks are. */
import assert from 'node:assert/strict';
import { mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { forget, keepersOf } from '../../src/disks/keep.js';
import { keptDisks } from '../../src/disks/kept.js';
import { lvmForget, lvmIsThere } from '../../src/disks/lvm.js';
import { run, type Run } from '../../src/disks/run.js';
import { parseDiskWay } from '../../src/disks/way.js';
import type { Xenstore } from '../../src/host/contract.js';
import { configWithDisks as embeddedWithDisks } from '../../src/host/embedded/new_disks.js';
import { domainDisks } from '../../src/host/xen/disks.js';
import { configWithDisks } from '../../src/host/xen/new_disks.js';

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
  failed('kill -TERM $$', /was killed by SIGTERM$/u);
  failed('exec sleep 1000', /did not end within 0.05 s and was killed$/u, 50);
  assert.throws(() => run('/no/such/program', [], options), {
    code: 'COMMAND_FAILED',
    message: /cannot be run/u,
  });
});

/** Volumes that there are, and what was asked of LVM. */
function volumes(...there: string[]): { run: Run; asked: string[] } {
  const asked: string[] = [];
  const lvm: Run = (program, args) => {
    asked.push(program);
    const [, group, name] = /vg_name=(.*) && lv_name=(.*)/u.exec(args.at(-1) ?? '') ?? [];
    return there.includes(`${group}/${name}`) ? `  ${group}/${name}\n` : '\n';
  };
  return { run: lvm, asked };
}

const volume = (where: string) => ({ name: 'xvda', path: '/dev/dm-1', bytes: 4096, where });

test('no volume but one of ours is removed, and none that is gone', () => {
  const where = `vg/dormouse-${uuid}-20260101-000000.000-xvda`;
  const { run: lvm, asked } = volumes(where);
  assert.equal(lvmIsThere(lvm, volume(where)), true);
  lvmForget(lvm, volume(where));
  assert.deepEqual(asked, ['lvs', 'lvs', 'lvremove']);
  lvmForget(lvm, volume(`other/dormouse-${uuid}-20260101-000000.000-xvda`));
  assert.deepEqual(asked.slice(3), ['lvs']);
  for (const wrong of [
    'vg/root',
    'vg/dormouse-root',
    `vg/../dormouse-${uuid}-a`,
    `vg/x-dormouse-${uuid}-a`,
    `-f/dormouse-${uuid}-a`,
  ])
    assert.throws(() => lvmForget(lvm, volume(wrong)), { code: 'STORE_DAMAGED' }, wrong);
  assert.deepEqual(asked.length, 4);
});

test('a program that only a record names is not run', () => {
  const ran: string[] = [];
  const of = { kind: 'command', domain: uuid, disk: volume('where') } as const;
  const keepers = { ...keepersOf(null), run: (program: string) => ran.splice(0, 0, program).join('') };
  assert.throws(() => forget(keepers, of), { code: 'USAGE' });
  forget({ ...keepers, program: '/bin/true' }, of);
  assert.deepEqual(ran, ['/bin/true']);
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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as z from 'zod';
import type { CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import type { Services } from '../../src/cli/services.js';
import { verbs } from '../../src/cli/program/verbs.js';
import { snapshotDowntime } from '../../src/domain/operation.js';
import type { DumpResult } from '../../src/dump/dump_core.js';
import type { RollbackResult } from '../../src/rollback/rollback.js';
import { DormouseError, errorKinds, type ErrorCode } from '../../src/errors.js';
import type { HostReport } from '../../src/host/embedded/ops.js';
import type { Inspection } from '../../src/image/inspect.js';
import type { VerifyReport } from '../../src/image/verify.js';
import { keyLine } from '../../src/trust/key_text.js';
import { cli, services, type Ran } from '../support/cli.js';
import { domainInfo, FakeHost } from '../support/fake_host.js';

const counts = { data: 100, zero: 20, table: 5, noFrame: 3, broken: 0, alloc: 0, sameAsParent: 0 };
const phases = { prepareMs: 2, liveMs: 0, pauseMs: 3.5, writeMs: 5, commitMs: 1.5, settleMs: 0.5 };
const downtime = snapshotDowntime(3.5);
const sizes = { counts, memoryBytes: 128 * 4096, storedBytes: 200_000, elapsedMs: 12.5 };
const imageId = '00112233445566778899aabbccddeeff';
const root = imageId + imageId;
const saved = {
  path: 'a.dmi',
  imageId,
  parent: null,
  compression: 'lz4' as const,
  domid: 1,
  name: 'web1',
  paused: false,
  standstillMs: 3.5,
  phases,
  downtime,
  ...sizes,
};

function checkpointed(path: string): CheckpointResult {
  const consistency = 'suspend-point';
  return {
    path,
    imageId,
    parent: null,
    compression: 'lz4',
    domid: 1,
    name: 'web1',
    paused: false,
    mode: 'light',
    consistency,
    pauseMs: 0.12,
    phases,
    downtime: snapshotDowntime(0.12),
    cowPages: 4,
    copiedPages: 0,
    ...sizes,
  };
}

function rolledBack(path: string): RollbackResult {
  const pages = { putPages: 3, samePages: 125 };
  const times = { pauseMs: 0.75, elapsedMs: 12.5, phases, downtime: snapshotDowntime(0.75) };
  return { path, domid: 1, name: 'web1', imageId, safety: null, paused: false, ...pages, ...times };
}

function dumped(path: string): DumpResult {
  const sizes = { vcpus: 2, pages: 128, fileBytes: 540_000, pauseMs: 4.25, elapsedMs: 12.5 };
  return { path, domid: 1, name: 'web1', ...sizes };
}

const report: HostReport = {
  name: 'default',
  pid: 77,
  version: '0.1.0',
  startedAt: '2026-01-01T00:00:00.000Z',
  memoryBytes: 2 ** 32,
  freeBytes: 2 ** 31,
  quarantinedBytes: 0,
  guests: [domainInfo()],
  leases: [{ domid: 1, operation: 'save', pid: 78 }],
  snapshots: 0,
  trackers: 0,
  connections: 1,
  capabilities: {
    'light-suspend-point': true,
    'cow-snapshot': true,
    'log-dirty': true,
    'cooperative-suspend': true,
    rewrite: true,
    create: true,
    'xl-config': 'xl-config: not written yet',
  },
};

const verified: VerifyReport = {
  path: 'a.dmi',
  imageId,
  root,
  bytesRead: 200_000,
  chunksChecked: 2,
  blocksDecoded: 9,
  nrPfns: 128,
  ancestors: [],
  contentRootCompared: true,
  findings: [],
  more: 0,
};

const inspected: Inspection = {
  path: 'a.dmi',
  fileBytes: 200_000,
  header: {
    ...{ major: 1, minor: 0, imageId, parent: null, nrPfns: 128, consistency: 'suspend-point' },
    ...{ chainId: imageId, sequence: 0, hasPageHashes: false, hasChunkDigests: false },
  },
  ancestors: [],
  mapKind: 'full',
  contentRoot: null,
  manifest: null,
  root,
  ...{ rootHolds: true, signerKey: null },
  committed: true,
  counts,
  chunks: { count: 2, byCodec: { lz4: 2 } },
  storedPages: 125,
  memoryBytes: 125 * 4096,
  ratio: 2.62,
  damage: ['the manifest is damaged'],
};

const ownKey = { key: Buffer.alloc(32, 0), label: 'me' };
const trustedKey = { key: Buffer.alloc(32, 2), label: 'other' };
const otherKey = trustedKey.key.toString('base64');

/** Every service answers as a real one would. */
function working(): Services {
  return services(new FakeHost([domainInfo(), domainInfo({ domid: 2, name: 'sad', shutdown: 'crash' })]), {
    startHost: () => Promise.resolve(true),
    stopHost: () => Promise.resolve(false),
    hostStatus: () => Promise.resolve({ state: 'running', report }),
    save: () => Promise.resolve(saved),
    restore: () =>
      Promise.resolve({ domid: 3, name: 'web1', from: 'dormouse', imageId, notes: [], phases, ...sizes }),
    checkImage: (_host, path) =>
      Promise.resolve({
        ...{ path, from: 'dormouse', imageId, name: 'web1', signer: 'unsigned' },
        findings: [{ code: 'NO_MEMORY', message: 'none', details: ['a line'] }],
      }),
    signerState: () => Promise.resolve('unsigned'),
    keys: {
      list: () => Promise.resolve({ folder: '/keys', own: ownKey, trusted: [trustedKey] }),
      show: () => Promise.resolve({ ...ownKey, line: keyLine(ownKey) }),
      trust: () => Promise.resolve({ added: true, known: trustedKey }),
      forget: () => Promise.resolve(trustedKey),
    },
    checkpoint: (_host, _selector, path) => Promise.resolve(checkpointed(path)),
    rollback: (_host, _selector, path) => Promise.resolve(rolledBack(path)),
    dumpCore: (_host, _selector, path) => Promise.resolve(dumped(path)),
    digestDomain: () => Promise.resolve({ digest: 'ab12', pages: 128, vcpus: 2 }),
    digestImage: () => Promise.resolve({ digest: 'ab12', pages: 128, vcpus: 2 }),
    inspectImage: () => Promise.resolve(inspected),
    verifyImage: () => Promise.resolve(verified),
    detectFormat: (path) => Promise.resolve(path.endsWith('.xl') ? 'xl' : 'dormouse'),
    convertFromXen: (_in, path) =>
      Promise.resolve({
        ...{ path, descriptor: null, imageId, root, name: 'web1', type: 'pv', notes: ['a note'] },
        ...sizes,
      }),
    demo: () =>
      Promise.resolve({
        identical: true,
        digest: 'ab12',
        checkpoints: 20,
        rows: [{ what: 'save', measured: '1.00 GB/s', limit: '2.00 GB/s' }],
        elapsedMs: 1000,
        table: 'save  1.00 GB/s\n',
      }),
  });
}

/** A command line for each verb that must end well, and what it prints for people. */
const commands: Readonly<Record<string, readonly [argv: string, text: RegExp, exitCode?: number]>> = {
  create: ['create name=new memory=64 kernel=/boot/k -p', /^created new \(domain 3\), paused\n$/],
  list: ['list', /^Name .*\nweb1 .*\nsad .*---?\n?/],
  domstate: ['domstate --reason sad', /^crashed \(crash\)\n$/],
  pause: ['pause web1', /^web1 is paused\n$/],
  unpause: ['unpause web1', /^web1 was not paused\n$/],
  destroy: ['destroy 2', /^sad is destroyed\n$/],
  save: ['save -c web1 a.dmi', /^saved: +web1 \(domain 1\), runs on\n.*\n(.*\n)+stood still: 3\.50 ms\n$/],
  restore: ['restore -p a.dmi', /^restored: +web1 \(domain 3\), paused\n/],
  checkpoint: ['checkpoint --count 2 web1 a-%d.dmi', /a-1\.dmi[^]*a-2\.dmi/],
  rollback: [
    'rollback web1 --image a.dmi --no-safety',
    /^rolled back: +web1 \(domain 1\), running\n[^]*3 put back, 125 the same\n[^]*paused for: +0\.750 ms\n$/,
  ],
  digest: ['digest --image a.dmi', /^ab12\n$/],
  'dump-core': ['dump-core web1 web1.core', /holds: +128 pages, 2 vCPUs\n[^]*paused for: 4\.25 ms\n$/],
  'image inspect': ['image inspect a.dmi', /damage: +1\n {2}the manifest is damaged\n$/, 3],
  'image verify': ['image verify a.dmi', /result: +whole\n$/],
  'image check': [
    'image check a.dmi',
    /^image: +web1, 0011.*\nsigned by: +nobody\nresult: +CANNOT.*\nNO_MEMORY: none\n {2}a line\n$/,
    3,
  ],
  'key list': ['key list', /^KEY .*\nAAAA.*= +this host +me\nAgIC.*= +other\n$/],
  'key show': ['key show', /^dormouse-ed25519 AAAA[A]+= me\n$/],
  'key trust': [`key trust ${otherKey}`, /^trusted: AgIC[^ ]+= other\n$/],
  'key forget': ['key forget other', /^forgotten: AgIC[^ ]+= other\n$/],
  'image convert': ['image convert a.xl a.dmi', /to an image\n[^]*note: a note\n$/],
  'host start': ['host start --memory 4G', /^embedded host default started\n$/],
  'host stop': ['host stop --force', /^embedded host default was not running\n$/],
  'host status': [
    'host status',
    /process 77[^]*lease: +save of domain 1 by process 78\n[^]*xl-config: +no: not written/,
  ],
  demo: ['demo', /^save +1\.00/],
  completion: ['completion fish', /^# Completion of dormouse for fish/],
  version: ['version', /^dormouse \d+\.\d+\.\d+ \(image format 1\.\d+, Node\.js v\d+/],
};

/** The JSON document, checked against the verb's schema: nothing else may be on stdout. */
function checkDocument(name: string, ran: Ran): void {
  const verb = verbs.find((candidate) => candidate.name === name);
  assert.ok(verb);
  const printed: unknown = JSON.parse(ran.stdout);
  const parsed = verb.document.safeParse(printed);
  if (!parsed.success) assert.fail(z.prettifyError(parsed.error));
  assert.deepEqual(parsed.data, printed);
}

test('every verb prints text for people and one document of its schema for programs', async (t) => {
  assert.deepEqual(Object.keys(commands).sort(), verbs.map(({ name }) => name).sort());
  for (const [name, [argv, text, exitCode = 0]] of Object.entries(commands))
    await t.test(name, async () => {
      const plain = await cli(working(), argv.split(' '));
      assert.equal(plain.exitCode, exitCode, plain.stderr);
      assert.match(plain.stdout, text);
      const json = await cli(working(), ['--json', ...argv.split(' ')]);
      assert.equal(json.exitCode, exitCode, json.stderr);
      checkDocument(name, json);
    });
});

const dormouse = (): Promise<'dormouse'> => Promise.resolve('dormouse');

test('every verb has help with an example, and every example is a command line of that verb', async () => {
  for (const verb of verbs) {
    const { exitCode, stdout } = await cli(working(), [...verb.name.split(' '), '--help']);
    assert.equal(exitCode, 0);
    assert.ok(verb.examples.length > 0);
    // The terminal's width breaks lines; a line break ends a sentence.
    for (const line of verb.details?.split('\n') ?? []) assert.match(line, /[.)]$/u, verb.name);
    for (const { command } of verb.examples) {
      assert.ok(stdout.includes(command), `${verb.name}: ${command}`);
      const words = (command.split(' && ')[0] ?? '')
        .replace('--interval 1000', '--interval 1')
        .split(' ')
        .slice(1);
      const given = command.includes('--to xen') ? { ...working(), detectFormat: dormouse } : working();
      const tried = await cli(given, ['--json', ...words]);
      assert.ok(!tried.stderr.includes('"USAGE"'), `${command}: ${tried.stderr}`);
      assert.ok(command.startsWith(`dormouse ${verb.name}`));
    }
  }
  const root = await cli(working(), ['--help']);
  for (const { name, summary } of verbs)
    if (!name.includes(' '))
      assert.ok(root.stdout.includes(name) && root.stdout.includes(summary.slice(0, 20)), name);
  assert.match(root.stdout, /Exit codes:\n {2}0 +done\n/u);
});

test('errors give their exit code, and are told to people and to programs', async () => {
  for (const [name, kind] of Object.entries(errorKinds)) {
    const failing = services(new FakeHost([domainInfo()]), {
      save: () => Promise.reject(new DormouseError(name as ErrorCode, 'it broke', { place: { pfn: 12 } })),
    });
    const plain = await cli(failing, ['save', 'web1', 'a.dmi']);
    assert.equal(plain.exitCode, kind.exit, name);
    assert.equal(plain.stdout, '');
    assert.ok(plain.stderr.startsWith('dormouse: it broke\n  where: pfn 12\n  guest: '), plain.stderr);
    // Of the verb that was typed.
    const advice = kind.advice.replace('VERB', 'save');
    assert.ok(plain.stderr.endsWith(`  advice: ${advice}\n`));
    const json = await cli(failing, ['save', 'web1', 'a.dmi', '--json']);
    assert.equal(json.exitCode, kind.exit);
    assert.equal(json.stdout, '');
    const { guest } = kind;
    const expected = {
      type: 'exit_error',
      code: kind.exit,
      name,
      guest,
      message: 'it broke',
      advice,
      place: { pfn: 12 },
    };
    assert.deepEqual(JSON.parse(json.stderr.trimEnd().split('\n').at(-1) ?? ''), expected);
  }
});

test('what is no command line is a usage error', async () => {
  const wrong = [
    '',
    'host',
    'image',
    'nonsense',
    'list --nonsense',
    'save web1',
    'save -c -p web1 a.dmi',
    'save web1 a.dmi extra',
    'checkpoint --count 3 web1 a.dmi',
    'checkpoint --incremental-from',
    'checkpoint --count 0 web1 a-%d.dmi',
    'checkpoint --mode heavy web1 a.dmi',
    'rollback web1 --no-safety',
    'rollback web1 --image a.dmi',
    'rollback web1 --safety b.dmi',
    'digest',
    'digest web1 --image a.dmi',
    'image convert --to core a.xl a.dmi',
    'image convert --to xen a.xl a.dmi',
    'image inspect a.xl',
    'image verify a.xl',
    'restore --config a.cfg --trust-config a.dmi',
    'checkpoint web1 c-%d.dmi',
    'checkpoint web1 c.dmi --interval 100ms',
    'key',
    'key trust',
    'host start --memory lots',
    'host start --host xen',
    'create a.cfg b.cfg',
    'create memory=64',
  ];
  for (const line of wrong) {
    const { exitCode, stdout, stderr } = await cli(working(), line === '' ? [] : line.split(' '));
    assert.equal(exitCode, 2, `${line}: ${stderr}`);
    assert.equal(stdout, '', line);
    assert.match(stderr, /dormouse: .+\n {2}guest: untouched\n {2}advice: .+\n$/u, line);
  }
});

test('a domain that is not there is exit code 4, and the host is closed in every case', async () => {
  const host = new FakeHost([domainInfo()]);
  for (const argv of [
    ['domstate', 'nobody'],
    ['pause', 'nobody'],
    ['list', 'web1', 'nobody'],
  ])
    assert.equal((await cli(services(host), argv)).exitCode, 4);
  assert.equal((await cli(services(host), ['list'])).exitCode, 0);
  assert.equal(host.closed, 4);
});

test('host status tells of Xen where that is meant', async () => {
  const ran = await cli(services(new FakeHost([domainInfo()])), [
    'host',
    'status',
    '--host',
    'xen',
    '--json',
  ]);
  assert.equal(ran.exitCode, 0, ran.stderr);
  checkDocument('host status', ran);
  assert.match(ran.stdout, /"name": "xen"[^]*"cow-snapshot": "no pages"[^]*"name": "web1"/);
});

test('pause and destroy change the domain once', async () => {
  const host = new FakeHost([domainInfo()]);
  const run = async (argv: string): Promise<string> => (await cli(services(host), argv.split(' '))).stdout;
  assert.equal(await run('pause web1'), 'web1 is paused\n');
  assert.equal(await run('pause web1'), 'web1 was already paused\n');
  assert.equal(await run('domstate --reason web1'), 'paused (user)\n');
  assert.equal(await run('unpause web1'), 'web1 runs again\n');
  assert.equal(await run('destroy web1'), 'web1 is destroyed\n');
  assert.equal(host.domains.length, 0);
});

test('create hands on what the settings say, and warns of what it passes over', async () => {
  const host = new FakeHost();
  const ran = await cli(services(host), [
    'create',
    'name=a',
    'memory=64',
    'program=counter',
    'kernel=/k',
    'disk=[]',
  ]);
  assert.equal(ran.stderr, 'dormouse: warning: settings without meaning here: kernel, disk\n');
  const [created] = host.created;
  assert.deepEqual(
    { ...created?.spec, uuid: '' },
    {
      name: 'a',
      uuid: '',
      type: 'pv',
      maxMemoryKib: 65_536,
      vcpus: 1,
      config: '{"program":"counter"}',
    },
  );
  assert.equal((await cli(services(host), ['create', '-q', 'name=b', 'kernel=/k'])).stderr, '');
});

test('create hands all settings on to a host that takes those of xl', async () => {
  const host = new FakeHost([], true);
  const given = [
    'create',
    '-p',
    'name=a',
    'memory=64',
    'kernel=/boot/a b',
    'disk=["/x,raw,xvda,w"]',
    'of_xl_5=1',
  ];
  const ran = await cli(services(host), given);
  assert.deepEqual([ran.exitCode, ran.stderr], [0, '']);
  const xlConfig = 'name = "a"\nmemory = 64\nkernel = "/boot/a b"\ndisk = ["/x,raw,xvda,w"]\nof_xl_5 = 1\n';
  assert.deepEqual(host.created, [{ spec: { name: 'a', xlConfig }, paused: true }]);
  assert.equal((await cli(services(host), ['create', 'memory=64'])).exitCode, 2);
});

test('verify names what is damaged and exits with 3', async () => {
  const damaged: VerifyReport = {
    ...verified,
    findings: [
      {
        what: 'checksum of the chunk differs',
        chunk: 1,
        offset: 8192,
        pfns: [
          [0, 16],
          [40, 1],
        ],
      },
    ],
    more: 2,
  };
  const given = services(new FakeHost(), {
    verifyImage: () => Promise.resolve(damaged),
    detectFormat: dormouse,
  });
  const ran = await cli(given, ['image', 'verify', 'a.dmi']);
  assert.equal(ran.exitCode, 3);
  assert.match(
    ran.stdout,
    /DAMAGED, 3 findings\nchunk 1, offset 8192, pfns 0-15 40: checksum .*\nand 2 more\n$/u,
  );
});

test('a signal ends with 129, 130 or 143', async () => {
  for (const [name, exitCode] of [
    ['SIGHUP', 129],
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const controller = new AbortController();
    const given = services(new FakeHost([domainInfo()]), {
      save: (_host, _selector, _path, { signal }) =>
        new Promise((_, reject) => {
          signal?.addEventListener('abort', () => reject(new DormouseError('CANCELLED', 'cancelled')));
          controller.abort(name);
        }),
    });
    const ran = await cli(given, ['save', 'web1', 'a.dmi'], controller.signal);
    assert.equal(ran.exitCode, exitCode);
    assert.match(ran.stderr, /^dormouse: cancelled\n {2}guest: untouched\n/u);
  }
});

test('--host and the name of an embedded host reach the engine', async () => {
  const asked: (string | undefined)[] = [];
  const host = new FakeHost();
  const given = services(host, {
    openHost: (selector) => {
      asked.push(selector);
      return Promise.resolve(host);
    },
    stopHost: (name) => {
      asked.push(name);
      return Promise.resolve(true);
    },
  });
  await cli(given, ['list', '--host', 'embedded:lab']);
  await cli(given, ['host', 'stop', '--host', 'embedded:lab']);
  await cli(given, ['host', 'stop', '--name', 'other']);
  assert.deepEqual(asked, ['embedded:lab', 'lab', 'other']);
});

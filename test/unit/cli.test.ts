import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as z from 'zod';
import { verbs } from '../../src/cli/program/verbs.js';
import { DormouseError, errorKinds, type ErrorCode } from '../../src/errors.js';
import type { VerifyReport } from '../../src/image/verify.js';
import { cli, services, type Ran } from '../support/cli.js';
import { domainInfo, FakeHost } from '../support/fake_host.js';
import { otherKey, verified, working } from '../support/working_services.js';

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
  bisect: [
    'bisect web1 --store s --good 2026 --bad latest --leave good -- test -f ok',
    /^first bad: +one of 20260101-000003\.000, [^]*tried: +3 of 3 points\n[^]*, at the last good point, running\n/,
    3,
  ],
  protect: [
    'protect web1 --store s --count 3',
    /^protected: +web1 .*\npoints: +3 points, 1 skipped for their pause, 2 failures\n/,
  ],
  points: ['points --store s', /^POINT .*\n20260101-000000\.123 +web1 .* whole +none +pinned\n$/],
  prune: ['prune web1 --store s --keep-last 1', /^forgotten: +1 point\nremoved: +1 image, 4\.00 KiB\n/],
  'point pin': ['point pin web1 latest --store s', /^20260101-000000\.123 is pinned\n$/],
  'point unpin': ['point unpin web1 latest --store s', /^20260101-000000\.123 is no longer pinned\n$/],
  'point verify': [
    'point verify web1 --store s',
    /^20260101-000000\.123: gone\n2 points, 2 images, 1 disk: 1 finding\n$/,
    3,
  ],
  'point diff': [
    'point diff web1 latest~1 --store s',
    /^from: .*web1\n[^]*3 of 128 pages\n {2}data: +2: pfns 3-4\n {2}zero to tables: +1: pfns 9\nvCPU 0: +rip 0x01 to 0x02, xsave\n[^]*only in to\n[^]*links: +devices vbd 51712; ports 3, 4; rings at pfns 77; grants\ndisk xvda: +\/a to \/b, 4096 to 4097 bytes, reflink\ndisk xvdb: +only in to: \/c, 8\.00 KiB, reflink\n/,
  ],
  'point export': [
    'point export web1 --store s --to a.core --as core',
    /^exported: +20260101-000000\.123 of web1, as a core dump\n[^]*note: a note\n$/,
  ],
  'point flatten': [
    'point flatten web1 latest --store s',
    /^flattened: +20260101-000000\.123\n[^]*of it shared\nunneeded: +2 images, [^]*\n$/,
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
    'rollback web1 latest',
    'rollback web1 --store s --image a.dmi',
    'rollback web1 --store s --safety b.dmi',
    'rollback web1 latest --image a.dmi --no-safety',
    'rollback web1 --no-safety',
    'rollback web1 --image a.dmi',
    'rollback web1 --safety b.dmi',
    'bisect web1 --store s --good 2026 --bad latest',
    'bisect web1 --store s --good 2026 -- true',
    'bisect web1 --good 2026 --bad latest -- true',
    'bisect web1 --store s --good 2026 --bad latest --no-safety -- true',
    'bisect web1 --store s --good 2026 --bad latest --leave there -- true',
    'bisect web1 --store s --good 2026 --bad latest --timeout long -- true',
    'digest',
    'digest web1 --image a.dmi',
    'image convert --to core a.xl a.dmi',
    'image convert --to xen a.xl a.dmi',
    'image inspect a.xl',
    'image verify a.xl',
    'restore --config a.cfg --trust-config a.dmi',
    'restore a.dmi latest',
    'restore web1 --store s --scratch d',
    'checkpoint web1 c-%d.dmi',
    'checkpoint web1 c.dmi --interval 100ms',
    'checkpoint web1',
    'checkpoint web1 a.dmi --store s',
    'checkpoint web1 --store s --incremental-from a.dmi',
    'protect web1',
    'protect web1 --store s --every soon',
    'points web1',
    'prune web1 20260101 --store s --keep-last 1',
    'point pin web1 --store s',
    'point diff web1 --store s',
    'point export web1 --store s',
    'point export web1 --store s --to a.bin --as tar',
    'point export web1 --store s --to a.bin --as raw --compression none',
    'point flatten web1 --store s',
    'point diff web1 latest',
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

test('bisect tells each step where progress is shown, and knows the host that COMMAND is to ask', async () => {
  const line =
    'bisect web1 --host embedded:lab --store s --good 2026 --bad latest --timeout 2m -- sh -c true';
  const asked: unknown[] = [];
  const given = working();
  const told: typeof given = {
    ...given,
    bisect: (host, selector, store, options) => {
      asked.push([selector, store, options.command, options.env, options.timeoutMs, options.leave]);
      return given.bisect(host, selector, store, options);
    },
  };
  const plain = await cli(told, line.split(' '));
  assert.deepEqual(asked, [
    ['web1', 's', ['sh', '-c', 'true'], { DORMOUSE_HOST: 'embedded:lab' }, 120_000, 'before'],
  ]);
  assert.equal(
    plain.stderr,
    [
      'bisect web1: 20260101-000000.123 is good (exit 0, 12.5 ms); 2 points left, about 1 step',
      'bisect web1: 20260101-000003.000 is bad (exit 1, 12.5 ms); 2 points left, about 1 step',
      'bisect web1: 20260101-000002.000 is skipped (gone, 2.00 ms); 2 points left, about 1 step',
      '',
    ].join('\n'),
  );
  for (const quiet of ['--json', '-q', '--no-progress'])
    assert.equal((await cli(told, [quiet, ...line.split(' ')])).stderr, '', quiet);
});

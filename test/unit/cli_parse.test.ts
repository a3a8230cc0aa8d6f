import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { domainSpec } from '../../src/cli/create_spec.js';
import { parseConfig } from '../../src/cli/domain_config.js';
import { parseCount, parseSeconds, parseSize } from '../../src/cli/parse.js';
import { verbs } from '../../src/cli/program/verbs.js';
import { fieldNames } from '../../src/cli/verb.js';
import { DormouseError } from '../../src/errors.js';
import { renderJson } from '../../src/render/json.js';
import { formatBytes, formatDuration, formatRate, printable } from '../../src/render/units.js';
import { cli, services } from '../support/cli.js';
import { domainInfo, FakeHost } from '../support/fake_host.js';

test('sizes are read as they are meant, MiB without a unit', () => {
  const sizes: [string, number][] = [
    ['512', 512 * 2 ** 20],
    ['4G', 4 * 2 ** 30],
    ['1.5g', 1.5 * 2 ** 30],
    ['8GiB', 8 * 2 ** 30],
    ['64M', 64 * 2 ** 20],
    ['4096K', 2 ** 22],
  ];
  for (const [text, bytes] of sizes) assert.equal(parseSize(text), bytes, text);
  for (const text of ['', 'G', '-1', '0', '4X', '1e9', '4 G', '9'.repeat(9) + 'T', 'Infinity'])
    assert.throws(() => parseSize(text), { code: 'USAGE' }, text);
});

test('counts and times out of range are refused', () => {
  assert.equal(parseCount('20'), 20);
  assert.equal(parseSeconds('0.25'), 250);
  for (const text of ['0', '-1', '1.5', '', 'ten', '1000001'])
    assert.throws(() => parseCount(text), { code: 'USAGE' }, text);
  for (const text of ['0', '-1', '1e3', '', '86401'])
    assert.throws(() => parseSeconds(text), { code: 'USAGE' }, text);
});

test('durations and sizes read well at every magnitude', () => {
  const durations = [0, 0.1849, 12.34, 999.4, 999.6, 4210, 59_949, 59_951, 125_000, 3_840_000].map(
    formatDuration,
  );
  assert.deepEqual(durations, [
    ...['0.00 ms', '0.185 ms', '12.3 ms', '999 ms', '1.00 s', '4.21 s'],
    ...['59.9 s', '1 min 00 s', '2 min 05 s', '1 h 04 min'],
  ]);
  const sizes = [0, 1023, 1024, 1_572_864, 1_073_741_823, 2 ** 50].map(formatBytes);
  assert.deepEqual(sizes, ['0 B', '1023 B', '1.00 KiB', '1.50 MiB', '1.00 GiB', '1.00 PiB']);
  assert.equal(formatRate(2e9, 1000), '2.00 GB/s');
  fc.assert(
    fc.property(fc.maxSafeNat(), (bytes) => {
      assert.match(formatBytes(bytes), /^[0-9.]{1,4} ([KMGTP]iB|B)$/u);
    }),
  );
});

test('printable text holds no control characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.doesNotMatch(printable(text), /[\p{Cc}\p{Cf}\p{Cs}]/u);
    }),
  );
});

test('JSON holds none either, and is the same once it is parsed', () => {
  const hostile = 'a\u009b31m\u007f\u202etxt\u2028\u200b\u{e0001}\ud800 Büro 2 😀';
  assert.equal(
    renderJson([hostile]),
    '["a\\u009b31m\\u007f\\u202etxt\\u2028\\u200b\\udb40\\udc01\\ud800 Büro 2 😀"]',
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const document = { [text]: [text, { text }] };
      for (const indent of [0, 2]) {
        const json = renderJson(document, indent);
        assert.doesNotMatch(json.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u);
        assert.deepEqual(JSON.parse(json), document);
      }
    }),
  );
});

test('whatever a verb or an error says as JSON holds none', async () => {
  const name = 'a\u009b31m\u202e\u007f';
  const host = new FakeHost([domainInfo({ name })]);
  const given = services(host, {
    restore: () => Promise.reject(new DormouseError('IMAGE_DAMAGED', name, { place: { path: name } })),
  });
  const [listed, long, failed] = [
    await cli(given, ['list', '--json']),
    await cli(given, ['list', '-l']),
    await cli(given, ['restore', '--json', 'a.dmi']),
  ];
  for (const { stdout, stderr } of [listed, long, failed])
    assert.doesNotMatch(stdout + stderr, /(?!\n)[\p{Cc}\p{Cf}\p{Cs}]/u);
  assert.equal((JSON.parse(listed.stdout) as { domains: { name: string }[] }).domains[0]?.name, name);
  assert.equal((JSON.parse(long.stdout) as { name: string }[])[0]?.name, name);
  assert.equal((JSON.parse(failed.stderr) as { message: string }).message, name);
});

function spec(text: string): ReturnType<typeof domainSpec> {
  return domainSpec(parseConfig(text, 'a.cfg'));
}

test('a configuration becomes the domain it describes', () => {
  const { spec: made, ignored } = spec(`
    name = "web1"            # comment
    memory = "512"
    vcpus = 4
    uuid = '12345678-9ABC-4DEF-8123-456789ABCDEF'
    program = "writer"
    seed = 7
    steps = 1000
    rate = 20000
    working_set_pages = 4096
    deaf = 1
    kernel = "/boot/vmlinuz"
    disk = [ 'phy:/dev/vg/web1,xvda,w', ]
  `);
  assert.deepEqual(ignored, ['kernel', 'disk']);
  assert.deepEqual(
    { ...made, config: JSON.parse(made.config) as unknown },
    {
      name: 'web1',
      uuid: '12345678-9abc-4def-8123-456789abcdef',
      type: 'pv',
      maxMemoryKib: 512 * 1024,
      vcpus: 4,
      config: { program: 'writer', seed: 7, steps: 1000, rate: 20_000, workingSetPages: 4096, deaf: true },
    },
  );
});

test('the files of disks become absolute, whatever the form they are given in', () => {
  const disksOf = (text: string): unknown =>
    (JSON.parse(spec(`name = "a"\n${text}`).spec.config) as { disks?: unknown }).disks;
  assert.equal(disksOf(''), undefined);
  assert.deepEqual(disksOf('disk_files = "/images/a"'), [{ file: '/images/a', readOnly: false }]);
  assert.deepEqual(disksOf('disk_files = ["/a,b", "c,ro", "/d,rw"]'), [
    { file: '/a,b', readOnly: false },
    { file: join(process.cwd(), 'c'), readOnly: true },
    { file: '/d', readOnly: false },
  ]);
});

test('a configuration that is not one is refused with the setting', () => {
  const refused: [string, RegExp][] = [
    ['memory = 64', /the name is missing/u],
    ['name = ""', /the name is missing/u],
    ['name = "a"\ndisk_files = 5', /disk_files: paths of files are expected, not 5/u],
    ['name = "a"\ndisk_files = [""]', /disk_files: paths of files are expected/u],
    ['name = 5', /name: a string is expected, not 5/u],
    ['name = "a"\nmemory = "much"', /memory: a whole number is expected/u],
    ['name = "a"\nmemory = 0', /memory: 1 to/u],
    ['name = "a"\ntype = "zone"', /type: pv, pvh or hvm/u],
    ['name = "a"\ndeaf = 2', /deaf: 0 or 1/u],
    ['name = "a"\nsteps = [1]', /steps: a whole number is expected/u],
    ['name = "a"\nspeed = 3\ncolour = 1', /unknown settings speed, colour/u],
  ];
  for (const [text, message] of refused)
    assert.throws(() => spec(text), { code: 'CONFIG_INVALID', message }, text);
});

test('the typed input of each verb has a field for each argument and option, and no other', () => {
  for (const verb of verbs) {
    const { args, options } = fieldNames(verb);
    assert.deepEqual([...verb.fields].sort(), [...new Set([...args, ...options])].sort(), verb.name);
  }
});

const boundaries: readonly (readonly [line: string, message: RegExp])[] = [
  ['save --suspend-timeout soon web1 a', /a time is a number of seconds/u],
  ['checkpoint --count 0 web1 a-%d', /a count is a whole number from 1/u],
  ['checkpoint --count 2 web1 a', /the file name holds %d/u],
  ['checkpoint --interval -1 web1 a', /an interval in milliseconds/u],
  ['checkpoint --mode deep web1 a', /light, cooperative/u],
  ['save --compression zip web1 a', /lz4, auto, none/u],
  ['image convert --compression none a.dmi b', /--compression is of images/u],
  ['host start --memory much', /a size is a number/u],
  ['save -c -p web1 a', /-c and -p exclude each other/u],
];

for (const [line, message] of boundaries)
  test(`refused before anything is done: ${line}`, async () => {
    const host = new FakeHost([]);
    const detectFormat = (): Promise<'dormouse'> => Promise.resolve('dormouse');
    const { exitCode, stderr } = await cli(services(host, { detectFormat }), line.split(' '));
    assert.equal(exitCode, 2);
    assert.match(stderr, message);
    assert.equal(host.closed, 0, 'no host was opened');
  });

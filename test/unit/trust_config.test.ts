/** What of a configuration counts as harmless, and what is listed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configRequests } from '../../src/trust/config_requests.js';
import { buildConfig, configForXl, parseXlConfig } from '../../src/xenstream/xl_config.js';
import { harmlessConfig, hostileConfigs, hostileText } from '../support/hostile_configs.js';

const uuid = '01234567-89ab-4def-8123-456789abcdef';
const domainOf = (type: 'pv' | 'pvh', config: string, name = 'g') =>
  ({ name, uuid, type, vcpus: 1, maxMemoryKib: 65_536, config }) as const;
const harmless = (type: 'pv' | 'pvh') => harmlessConfig(type, { name: 'g', uuid, kib: 65_536 });

test('what a guest without devices has is asked for by nobody', () => {
  for (const type of ['pv', 'pvh'] as const) {
    const usual = {
      ...harmless(type),
      disks: [],
      on_crash: 'preserve',
      on_watchdog: 'restart',
    };
    const text = JSON.stringify({
      ...usual,
      b_info: {
        ...(usual as { b_info?: object }).b_info,
        sched_params: { sched: 'credit2', weight: 256, cap: 0 },
        shadow_memkb: 5120,
        cmdline: 'console=hvc0 root=/dev/xvda',
        tsc_mode: 'native',
        cpuid: [{ leaf: 1, ecx: 'xxx0xxxxxxxxxxxxxxxxxxxxxxxxxxxx' }],
        claim_mode: 'False',
        blkdev_start: 'xvda',
        arch_x86: { msr_relaxed: 'False' },
      },
    });
    assert.deepEqual(configRequests(domainOf(type, `${text}\0`)), { values: [], more: 0 });
    assert.deepEqual(configRequests(domainOf(type, configForXl(domainOf(type, '')))), {
      values: [],
      more: 0,
    });
  }
  for (const text of ['', '{"program":"writer"}', '[]', 'null', '"c_info"', '{'])
    assert.deepEqual(configRequests(domainOf('pv', text)).values, [], text);
});

test('the disks of a guest program are asked for', () => {
  const text = '{"program":"disker","disks":[{"file":"/etc/shadow","readOnly":true}]}';
  assert.deepEqual(configRequests(domainOf('pv', text)).values, [
    'disks: {"file":"/etc/shadow","readOnly":true}',
  ]);
});

test('each value that names something of the host is listed by its place', async (t) => {
  for (const type of ['pv', 'pvh'] as const)
    for (const hostile of hostileConfigs(type, '/bin/script', '/a/file'))
      await t.test(`${type}: ${hostile.name}`, () => {
        const domain = domainOf(type, hostileText(harmless(type), hostile));
        const { values } = configRequests(domain);
        if (hostile.listed !== '')
          assert.ok(
            values.some((value) => value.startsWith(hostile.listed)),
            values.join('\n'),
          );
        // Who reads it by the first of two names is given what was judged.
        else assert.doesNotMatch(buildConfig(domain, 65_536).config, /bin.script/);
      });
});

test('a value of a harmless field that is out of its bounds or form is listed', () => {
  const wrong: Record<string, unknown> = {
    max_vcpus: 0,
    target_memkb: 2 ** 50,
    max_memkb: '65536',
    sched_params: { weight: 65_535 },
    cmdline: 'a\nb',
    blkdev_start: '/dev/sda',
    avail_vcpus: [1.5],
    cpuid: [{ leaf: 1, path: '/x' }],
    arch_x86: { msr_relaxed: 'True' },
    nested_hvm: true,
  };
  for (const [field, value] of Object.entries(wrong)) {
    const config = harmless('pv') as { b_info: Record<string, unknown> };
    config.b_info[field] = value;
    const { values } = configRequests(domainOf('pv', JSON.stringify(config)));
    assert.ok(values.length > 0 && values.every((one) => one.startsWith(`b_info.${field}`)), field);
  }
});

test('a name of which a path could be made is listed', () => {
  for (const name of ['../../etc/x', 'a/b', 'a\nb', ''])
    assert.equal(configRequests(domainOf('pv', '', name)).values.length, 1, name);
});

test('a list of thousands, and one nested deeply, ends', () => {
  const many = { ...harmless('pv'), disks: Array.from({ length: 5000 }, () => ({ pdev_path: '/dev/sda' })) };
  const { values, more } = configRequests(domainOf('pv', JSON.stringify(many)));
  assert.deepEqual([values.length, more], [100, 4900]);
  const deep = `{"c_info":{},"x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
  assert.ok(configRequests(domainOf('pv', deep)).values.length <= 1);
  const long = { c_info: {}, ['k'.repeat(1e6)]: 'v'.repeat(1e6) };
  assert.ok((configRequests(domainOf('pv', JSON.stringify(long))).values[0]?.length ?? 0) < 500);
});

test('a domain is built with what it holds where its target is less, and told the target afterwards', () => {
  const config = harmless('pv') as { b_info: Record<string, unknown> };
  const built = (target: number | undefined, neededKib: number) => {
    config.b_info['target_memkb'] = target;
    const { config: text, targetKib } = buildConfig(domainOf('pv', JSON.stringify(config)), neededKib);
    const { b_info: build } = JSON.parse(text) as { b_info: Record<string, number> };
    return [build['target_memkb'], targetKib];
  };
  assert.deepEqual(built(40_000, 50_000), [50_000, 40_000]);
  assert.deepEqual(built(50_000, 40_000), [50_000, null]);
  // What is beyond its most is libxl's own slack.
  assert.deepEqual(built(40_000, 65_540), [65_536, 40_000]);
  assert.deepEqual(built(undefined, 65_536), [undefined, null]);
});

test('vCPUs with holes between them: as many as the highest id, and only those online', () => {
  const text = configForXl({ ...domainOf('pv', ''), vcpus: 2, onlineVcpus: [0, 3] });
  const { b_info: build } = JSON.parse(text) as { b_info: { max_vcpus: number; avail_vcpus: number[] } };
  assert.deepEqual([build.max_vcpus, build.avail_vcpus], [4, [0, 3]]);
});

test('names that a shell or an option parser would read are listed, and fields whose name libxl reads otherwise', () => {
  const domain = domainOf('pv', '');
  for (const name of ['$(reboot)', '--force', '-f', 'a;b', 'a`b`', '.hidden'])
    assert.equal(configRequests({ ...domain, name, config: '' }).values.length, 1, name);
  for (const name of ['web1', 'Büro 2', 'a.b:c@d-e+f'])
    assert.deepEqual(configRequests({ ...domain, name, config: '' }).values, [], name);
  const config = JSON.stringify({ c_info: {}, 'name\0': [] });
  assert.equal(configRequests({ ...domain, config }).values.length, 1);
});

test('a configuration that is long, or ends in many NULs, is judged at once', () => {
  const domain = domainOf('pv', '');
  const startedMs = performance.now();
  const long = configRequests({ ...domain, config: '\0'.repeat(16 << 20) + 'x' });
  assert.match(long.values[0] ?? '', /too long/u);
  assert.deepEqual(configRequests({ ...domain, config: '\0'.repeat(1 << 20) }).values, []);
  assert.equal(parseXlConfig('\0'.repeat(4 << 20) + 'x'), null);
  assert.ok(performance.now() - startedMs < 20_000, 'quadratic');
});

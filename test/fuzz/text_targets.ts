/** Configurations, what is trusted of them, keys, and what an image says of the processor. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { decodeConfig } from '../../src/cli/config_file.js';
import { domainSpec } from '../../src/cli/create_spec.js';
import { parseConfig, renderSettings } from '../../src/cli/domain_config.js';
import { missingFeatures } from '../../src/domain/cpu_policy.js';
import { onlineVcpus } from '../../src/domain/hvm_context.js';
import { localiseVcpus } from '../../src/domain/pv_state.js';
import { encodeManifest } from '../../src/image/manifest.js';
import { configRequests } from '../../src/trust/config_requests.js';
import { keyLine, parseKey } from '../../src/trust/key_text.js';
import { buildConfig, configForXl, domainOfConfig, parseXlConfig } from '../../src/xenstream/xl_config.js';
import { harmlessConfig, hostileConfigs, hostileText } from '../support/hostile_configs.js';
import { manifestFor } from '../support/images.js';
import { xlConfig } from '../support/xen_stream.js';
import type { Target } from './target.js';

const nrPfns = 24;
const uuid = '01234567-89ab-4def-8123-456789abcdef';
const counts = { data: nrPfns, zero: 0, table: 0, noFrame: 0, broken: 0, alloc: 0, sameAsParent: 0 };
const text = (...lines: string[]): Buffer[] => lines.map((line) => Buffer.from(line));

/** What is understood is understood alike when it is written again. */
function takeConfig(words: string): void {
  const settings = parseConfig(words, 'input');
  assert.deepEqual(parseConfig(renderSettings(settings), 'again'), settings);
  const { spec } = domainSpec(settings);
  assert.notEqual(spec.name, '');
  assert.ok(Number.isSafeInteger(spec.maxMemoryKib) && spec.maxMemoryKib > 0);
  JSON.parse(spec.config);
}

function takeConfigFile(input: Buffer): void {
  const words = decodeConfig('input', input);
  const bare = input.subarray(0, 3).toString('hex') === 'efbbbf' ? input.subarray(3) : input;
  assert.ok(Buffer.from(words).equals(bare), 'another text than the file has');
  takeConfig(words);
}

/** A file of xl's with this configuration becomes an image, and is given to xl again under the image's name. */
function takeXlConfig(input: Buffer): void {
  const config = input.toString('utf8');
  const domain = domainOfConfig(config, { type: 'pv', nrPfns, vcpus: 1 });
  encodeManifest(manifestFor(nrPfns, counts, { domain }));
  const renamed = { ...domain, name: 'other', uuid };
  const given = parseXlConfig(configForXl(renamed));
  assert.equal(given?.c_info?.name, 'other');
  assert.equal(given.c_info.uuid, uuid);
}

/** Lists and words of libxl that name something of the host. */
const dangerous = new Set([
  ...['disks', 'nics', 'pcidevs', 'rdms', 'dtdevs', 'vfbs', 'vkbs', 'vtpms', 'p9s', 'channels', 'usbdevs'],
  ...['usbctrls', 'vsnds', 'vdispls', 'pvcallsifs', 'virtios', 'kernel', 'ramdisk', 'bootloader', 'firmware'],
  ...['device_model', 'device_model_user', 'extra', 'extra_pv', 'extra_hvm', 'ioports', 'irqs', 'iomem'],
  ...['xsdata', 'platformdata', 'pool_name', 'nodemap', 'vcpu_hard_affinity', 'serial', 'pvshim_path'],
]);

/** A place that names something of the host, or null. Written without a look at the allow-list. */
function reachesHost(value: unknown, place = ''): string | null {
  if (typeof value === 'string') return value.startsWith('/') && !place.endsWith('.cmdline') ? place : null;
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, held] of Object.entries(value)) {
    const isNothing = held === null || (Array.isArray(held) && held.length === 0);
    if (isNothing) continue;
    if (dangerous.has(key)) return `${place}.${key}`;
    const found = reachesHost(held, `${place}.${key}`);
    if (found !== null) return found;
  }
  return null;
}

/** Of a configuration that asks for nothing, what libxl is given asks for nothing either, whoever judges it. */
function takeTrust(input: Buffer): void {
  const [which = 0] = input;
  const type = which % 2 === 0 ? 'pv' : 'pvh';
  const config = input.toString('utf8', 1);
  const domain = { name: 'g', uuid, type, vcpus: 1, maxMemoryKib: 65_536, config } as const;
  const { values, more } = configRequests(domain);
  assert.ok(values.length <= 100 && (more === 0 || values.length === 100));
  for (const value of values) assert.ok(value.length < 4096, 'an endless line');
  if (values.length > 0) return;
  const given = buildConfig(domain, 65_536).config;
  assert.deepEqual(configRequests({ ...domain, config: given }).values, [], 'rewritten, it asks for more');
  assert.equal(reachesHost(JSON.parse(given)), null);
}

function trustSeeds(): Buffer[] {
  return (['pv', 'pvh'] as const).flatMap((type, i) => {
    const harmless = harmlessConfig(type, { name: 'g', uuid, kib: 65_536 });
    const hostile = hostileConfigs(type, '/bin/script', '/a/file').map((one) => hostileText(harmless, one));
    return [JSON.stringify(harmless), ...hostile].map((words) => Buffer.from(String.fromCharCode(i) + words));
  });
}

function takeKey(input: Buffer): void {
  const key = parseKey(input.toString('utf8'));
  if (!key) return;
  assert.equal(key.key.length, 32);
  assert.deepEqual(parseKey(keyLine(key)), key);
  assert.doesNotMatch(keyLine(key), /\p{Cc}/u);
}

/** Blobs of state in an image: policies, HVM records, registers. The first byte says how they divide the rest. */
function takeState(input: Buffer): void {
  const [cut = 0, other = 0] = input;
  const at = Math.floor((input.length * cut) / 256);
  const [a, b] = [input.subarray(2, Math.max(2, at)), input.subarray(Math.max(2, at))];
  const vcpu = { id: other % 4, basic: Buffer.alloc(5168), extended: a, xsave: b, msrs: a };
  b.copy(vcpu.basic, Math.min(5000, 16 * other));
  const guest = { cpuidPolicy: a, msrPolicy: b, hvmContext: b, vcpus: [vcpu] };
  const missing = missingFeatures(guest, { cpuidPolicy: Buffer.alloc(0), msrPolicy: a });
  assert.equal(new Set(missing).size, missing.length);
  const unused = { ...guest, hvmContext: Buffer.alloc(0), vcpus: [] };
  assert.deepEqual(missingFeatures(unused, guest), [], 'it lacks what it has');
  for (const online of onlineVcpus(guest)) assert.ok(online >= 0 && online < 65_536);
  const half = (pfns: BigUint64Array): BigUint64Array =>
    pfns.map((pfn) => (pfn < 1000n ? pfn * 3n : 2n ** 64n - 1n));
  const [localised] = localiseVcpus([vcpu], half);
  assert.equal(localised?.basic.length, vcpu.basic.length);
}

const pair = (first: string, second: string): Buffer =>
  Buffer.concat([Buffer.from([128, 0]), Buffer.from(first + second, 'hex')]);

export const textTargets: Readonly<Record<string, Target>> = {
  'xl-cfg': {
    codes: ['CONFIG_INVALID'],
    words: [
      'name',
      'memory',
      'disk',
      '=',
      '+=',
      '[',
      ']',
      ',',
      '"',
      "'",
      '\\x41',
      '\\n',
      '#',
      '\n',
      ';',
      '0x',
    ],
    seeds: () =>
      text(
        "name = 'g'\nmemory=0x20 ; vcpus = 2 # a comment\n",
        'name="g"\ndisk = [ "a,b", \'c\', [1, [2, "\\x41\\101\\n"]], ]\nextra += "x"\nextra += \'y\'\n',
        'a=[[[[[[[[1]]]]]]]]\r\nb="\\q"',
        'name="g"\nprogram="writer"\nseed=1\nsteps="5"\ndeaf=1\ntype="pvh"\nuuid="x"\n',
      ),
    run: (input) => {
      takeConfig(input.toString('utf8'));
    },
  },
  'config-file': {
    codes: ['CONFIG_INVALID'],
    seeds: () => text("name = 'g'\n", '\ufeffname="é"\n', 'name = "\u{1f600}"'),
    run: takeConfigFile,
  },
  'xl-config': {
    codes: ['STREAM_INVALID'],
    words: [
      '"c_info":{',
      '"b_info":{',
      '"name":',
      '"uuid":',
      '"max_memkb":',
      '1e308',
      'null',
      '{}',
      '"__proto__":',
    ],
    seeds: () => text(xlConfig('pv'), xlConfig('pvh'), '{"c_info":{"uuid":"x"},"b_info":[]}', '{}\0'),
    run: takeXlConfig,
  },
  'trust-rules': {
    codes: [],
    words: [
      '"disks":[',
      '"__proto__":{',
      '"script":"/a"',
      '"b_info":{',
      '"c_info":{',
      '{',
      '}',
      '"kernel":',
      '[]',
      ',',
      '\0',
    ],
    seeds: trustSeeds,
    run: takeTrust,
  },
  key: {
    codes: [],
    words: ['dormouse-ed25519 ', '='],
    seeds: () =>
      text(
        keyLine({ key: Buffer.alloc(32, 7), label: 'a host' }),
        `${Buffer.alloc(32, 200).toString('base64')}\n`,
        'dormouse-ed25519',
      ),
    run: takeKey,
  },
  'guest-state': {
    codes: ['IMAGE_DAMAGED', 'IMAGE_INCOMPATIBLE'],
    seeds: () => [
      pair('01000000ffffffff000000001111111122222222ffffffff', '0a010000000000000f00000000000000'),
      pair('', '0200000008000000aaaaaaaaaaaaaaaa10000100080000001111111111111111'),
    ],
    run: takeState,
  },
};

/**
 * Run in dom0: node trust_checks.js hostile IMAGE SCRIPT FILE, or forge IMAGE CHANGE. Images are changed as somebody without a key
 * would.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { DormouseError } from '../../src/errors.js';
import { openXenHost, type XenHost } from '../../src/host/xen/host.js';
import type { Manifest } from '../../src/image/manifest.js';
import { restore } from '../../src/restore/restore.js';
import { harmlessConfig, hostileConfigs, hostileText } from '../support/hostile_configs.js';
import { forgeManifest, withConfig } from '../support/forge_manifest.js';

interface Outcome {
  readonly name: string;
  readonly code: string;
  readonly details: readonly string[];
}

/** What `restore` makes of the image; a domain that it made is removed again. */
async function tried(host: XenHost, image: string, name: string): Promise<Outcome> {
  try {
    const { domid } = await restore(host, image, { paused: true });
    await host.destroy(domid);
    return { name, code: 'restored', details: [] };
  } catch (thrown) {
    if (!(thrown instanceof DormouseError)) throw thrown;
    return { name, code: thrown.code, details: thrown.details };
  }
}

/** Domains that Xen has seen created: an id is given out only once. */
function nextDomid(): number {
  execFileSync('xl', ['create', '-q', '-p', '/domu/counter.cfg']);
  const domid = Number(execFileSync('xl', ['domid', 'counter'], { encoding: 'utf8' }));
  execFileSync('xl', ['destroy', 'counter']);
  return domid;
}

/** Each hostile configuration in turn. Prints the outcomes and how many domains were made on the way. */
async function hostile(image: string, script: string, file: string): Promise<object> {
  let before: Manifest | undefined;
  forgeManifest(image, (manifest) => (before = manifest));
  assert.ok(before);
  const { name, uuid, type, maxMemoryKib: kib } = before.domain;
  assert.ok(type === 'pv' || type === 'pvh');
  const harmless = harmlessConfig(type, { name, uuid, kib });
  const host = await openXenHost();
  const outcomes: Outcome[] = [];
  const first = nextDomid();
  try {
    for (const one of hostileConfigs(type, script, file)) {
      forgeManifest(image, withConfig(hostileText(harmless, one)));
      const outcome = await tried(host, image, one.name);
      outcomes.push(outcome);
      const listed = one.listed === '' || outcome.details.some((line) => line.startsWith(one.listed));
      assert.ok(listed, `${one.name}: ${outcome.code} ${outcome.details.join('; ')}`);
      assert.ok(!existsSync(`${script}.ran`), `${one.name} ran the script`);
    }
  } finally {
    await host.close();
  }
  const made = nextDomid() - first - 1;
  return { outcomes: outcomes.map(({ name: of, code }) => [of, code]), made };
}

/** AVX in the policy, as of a host that has it. */
function withAvx(manifest: Manifest): Manifest {
  const cpuidPolicy = Buffer.from(manifest.state.cpuidPolicy);
  for (let at = 0; at < cpuidPolicy.length; at += 24)
    if (cpuidPolicy.readUInt32LE(at) === 1)
      cpuidPolicy.writeUInt32LE((cpuidPolicy.readUInt32LE(at + 16) | (1 << 28)) >>> 0, at + 16);
  return { ...manifest, state: { ...manifest.state, cpuidPolicy } };
}

const changes: Readonly<Record<string, (manifest: Manifest) => Manifest>> = {
  avx: withAvx,
  'no-config': withConfig(''),
};

const [what = '', image = '', ...args] = process.argv.slice(2);
if (what === 'hostile')
  process.stdout.write(`${JSON.stringify(await hostile(image, args[0] ?? '', args[1] ?? ''))}\n`);
else {
  const change = changes[args[0] ?? ''];
  assert.ok(what === 'forge' && change, `no such change: ${args[0]}`);
  forgeManifest(image, change);
}

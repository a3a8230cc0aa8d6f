/** A newcomer's way through the command line: every verb on an embedded host, each JSON document checked. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import * as z from 'zod';
import { decodeFooter } from '../../src/image/frame.js';
import { command, documentOf, failure, type Ended } from '../support/command.js';
import { until, useRunDir } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const config = `# a guest of our own
name = "web1"
memory = 16
vcpus = 2
program = "writer"   # keeps writing
rate = 500
seed = 9
`;

const headLine = 'Name                                        ID   Mem VCPUs\tState\tTime(s)';

async function succeeds(t: TestContext, ...args: readonly string[]): Promise<Ended> {
  const ran = await command(t, ...args);
  assert.equal(ran.exitCode, 0, `${args.join(' ')}: ${ran.stderr}`);
  return ran;
}

async function digestOf(t: TestContext, ...args: readonly string[]): Promise<string> {
  return z.object({ digest: z.string() }).parse(await documentOf(t, 'digest', args)).digest;
}

/** Create from a file, list, pause, unpause, domstate. */
async function meet(t: TestContext, dir: string): Promise<void> {
  const file = join(dir, 'web1.cfg');
  writeFileSync(file, config);
  const created = await documentOf(t, 'create', [file]);
  assert.deepEqual([created.domid, created.name, created.paused], [1, 'web1', false]);
  await failure(t, 'DOMAIN_EXISTS', 4, ['create', file]);
  const { stdout } = await succeeds(t, 'list');
  const [head, row, ...rest] = stdout.split('\n');
  assert.equal(head, headLine);
  assert.match(row ?? '', /^web1 {41}1 {4}16 {5}2 {5}[r-][b-]---- {2} {0,7}\d+\.\d$/u);
  assert.deepEqual(rest, ['']);
  const { domains } = z
    .object({ domains: z.array(z.object({ name: z.string(), vcpus: z.int(), memoryKib: z.int() })) })
    .parse(await documentOf(t, 'list', ['web1']));
  assert.deepEqual(domains, [{ name: 'web1', vcpus: 2, memoryKib: 16 * 1024 }]);
  assert.equal((await documentOf(t, 'pause', ['web1'])).changed, true);
  assert.equal((await documentOf(t, 'pause', ['web1'])).changed, false);
  const paused = await documentOf(t, 'domstate', ['web1']);
  assert.deepEqual([paused.state, paused.reason], ['paused', 'user']);
  assert.equal((await documentOf(t, 'unpause', ['1'])).changed, true);
  assert.match((await succeeds(t, 'domstate', 'web1')).stdout, /^(running|idle)\n$/u);
  await failure(t, 'DOMAIN_NOT_FOUND', 4, ['domstate', 'nobody']);
}

/** Save -c, save -p, checkpoints with %d; digests of domain and image agree. */
async function saveAndRestore(t: TestContext, dir: string): Promise<string> {
  const at = (name: string): string => join(dir, name);
  const kept = await documentOf(t, 'save', ['-c', 'web1', at('kept.dmi')]);
  assert.equal(kept.then, 'resume');
  assert.equal(statSync(at('kept.dmi')).mode & 0o777, 0o600);
  await failure(t, 'OUTPUT_EXISTS', 1, ['save', '-c', 'web1', at('kept.dmi')]);
  const taken = await documentOf(t, 'checkpoint', ['--count', '3', 'web1', at('web1-%d.dmi')]);
  assert.equal((taken.checkpoints as unknown[]).length, 3);
  for (const i of [1, 2, 3]) assert.ok(existsSync(at(`web1-${i}.dmi`)));
  const cooperative = ['--mode', 'cooperative', 'web1', at('cooperative.dmi')];
  await documentOf(t, 'checkpoint', cooperative);
  assert.match((await succeeds(t, 'domstate', 'web1')).stdout, /^(running|idle)\n$/u);
  assert.equal((await documentOf(t, 'save', ['-p', 'web1', at('paused.dmi')])).then, 'pause');
  assert.equal((await documentOf(t, 'domstate', ['web1'])).state, 'paused');
  const still = await documentOf(t, 'save', ['-c', 'web1', at('still.dmi')]);
  assert.deepEqual([still.paused, kept.paused], [true, false], 'one that was paused stays so');
  const digest = await digestOf(t, 'web1');
  assert.equal(await digestOf(t, '--image', at('paused.dmi')), digest);
  assert.notEqual(await digestOf(t, '--image', at('kept.dmi')), digest, 'the guest went on after save -c');
  const restored = await documentOf(t, 'restore', ['-p', '--name', 'copy', at('paused.dmi')]);
  assert.deepEqual([restored.name, restored.paused], ['copy', true]);
  assert.equal(await digestOf(t, 'copy'), digest);
  await failure(t, 'DOMAIN_EXISTS', 4, ['restore', at('paused.dmi')]);
  assert.equal((await documentOf(t, 'destroy', ['web1'])).changed, true);
  assert.equal((await documentOf(t, 'restore', [at('web1-2.dmi')])).name, 'web1');
  assert.equal((await documentOf(t, 'save', ['web1', at('gone.dmi')])).then, 'destroy');
  await failure(t, 'DOMAIN_NOT_FOUND', 4, ['pause', 'web1']);
  return digest;
}

/** Inspect, verify with and without damage, convert there and back. */
async function lookInside(t: TestContext, dir: string, digest: string): Promise<void> {
  const image = join(dir, 'paused.dmi');
  const inspected = await documentOf(t, 'image inspect', [image]);
  assert.deepEqual([inspected.committed, inspected.damage], [true, []]);
  assert.equal((inspected.domain as { name: string }).name, 'web1');
  assert.equal((await documentOf(t, 'image verify', [image])).whole, true);
  const [xl, back] = [join(dir, 'web1.xl'), join(dir, 'back.dmi')];
  assert.equal((await documentOf(t, 'image convert', ['--to', 'xen', image, xl])).to, 'xen');
  assert.equal((await documentOf(t, 'image convert', [xl, back])).to, 'native');
  assert.equal(await digestOf(t, '--image', back), digest);
  await failure(t, 'OUTPUT_EXISTS', 1, ['image', 'convert', xl, back]);
  await damage(t, dir, readFileSync(image));
}

async function damage(t: TestContext, dir: string, bytes: Buffer): Promise<void> {
  const place = decodeFooter(bytes.subarray(-4096)).chunksEnd - 8192;
  bytes[place] = (bytes[place] ?? 0) ^ 1;
  const damaged = join(dir, 'damaged.dmi');
  writeFileSync(damaged, bytes);
  const report = await documentOf(t, 'image verify', [damaged], 3);
  const [finding] = z
    .array(z.object({ chunk: z.int(), offset: z.int(), pfns: z.array(z.tuple([z.int(), z.int()])).min(1) }))
    .parse((report.findings as { chunk?: number }[]).filter(({ chunk }) => chunk !== undefined));
  assert.ok(finding && finding.offset <= place);
  const plain = await command(t, 'image', 'verify', damaged);
  assert.equal(plain.exitCode, 3);
  assert.match(plain.stdout, new RegExp(`chunk ${finding.chunk}, offset ${finding.offset}, pfns \\d`, 'u'));
  const error = await failure(t, 'IMAGE_DAMAGED', 12, ['restore', '--name', 'bad', damaged]);
  assert.equal(error.place?.chunk, finding.chunk);
  await failure(t, 'DOMAIN_NOT_FOUND', 4, ['domstate', 'bad']);
}

/** A host with guests is not stopped unasked; one that was killed is missed once. */
async function stopAndLose(t: TestContext): Promise<void> {
  const refused = await failure(t, 'DOMAIN_WRONG_STATE', 4, ['host', 'stop']);
  assert.match(refused.message, /copy/u);
  assert.equal((await documentOf(t, 'host stop', ['--force'])).stopped, true);
  assert.equal((await documentOf(t, 'host stop', [])).stopped, false);
  assert.equal((await documentOf(t, 'host status', [])).state, 'stopped');
  assert.equal((await documentOf(t, 'host start', ['--memory', '256M'])).started, true);
  for (const name of ['first', 'second'])
    await succeeds(t, 'create', `name=${name}`, 'memory=8', 'program=idle');
  const status = z
    .object({ state: z.literal('running'), pid: z.int(), memoryBytes: z.int() })
    .parse(await documentOf(t, 'host status', []));
  assert.equal(status.memoryBytes, 256 * 1024 ** 2);
  process.kill(status.pid, 'SIGKILL');
  await until('the host has died', 5000, async () => {
    return (await documentOf(t, 'host status', [])).state === 'died';
  });
  const lost = await failure(t, 'HOST_DIED', 5, ['list']);
  assert.match(lost.message, /first, second/u);
  assert.equal(lost.guest, 'gone');
  assert.equal((await succeeds(t, 'list')).stdout, `${headLine}\n`);
  const fresh = await documentOf(t, 'create', ['name=first', 'memory=8', 'program=counter']);
  assert.equal(fresh.domid, 1, 'the next one starts afresh');
  await documentOf(t, 'host stop', ['--force']);
}

test('from the first guest to the last', async (t) => {
  useRunDir(t);
  const dir = tempDir(t);
  assert.match(String((await documentOf(t, 'version', [])).dormouse), /^\d+\.\d+\.\d+$/u);
  await meet(t, dir);
  const digest = await saveAndRestore(t, dir);
  await lookInside(t, dir, digest);
  await stopAndLose(t);
});

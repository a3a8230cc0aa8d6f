import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { DormouseError, type ErrorCode } from '../../src/errors.js';
import { hostStatus, startHost, stopHost } from '../../src/host/embedded/lifecycle.js';
import { openEmbeddedHost, openHost } from '../../src/host/open/open_host.js';
import { guestSpec, isHost, startTestHost, until, useRunDir } from '../support/hosts.js';
import { startTool } from '../support/tools.js';

const mib = 1024 ** 2;
const hasCode =
  (code: ErrorCode, text = /./) =>
  (thrown: unknown) =>
    thrown instanceof DormouseError && thrown.code === code && text.test(thrown.message);

async function runningPid(name: string): Promise<number> {
  const status = await hostStatus(name);
  assert.ok(status.state === 'running');
  return status.report.pid;
}

test('a host starts within a second, says what it is, and stops without leaving files but its log and lock', async (t) => {
  const dir = useRunDir(t);
  assert.deepEqual(await hostStatus('a'), { state: 'stopped' });
  const begun = performance.now();
  assert.equal(await startHost({ name: 'a', memoryBytes: 64 * mib }), true);
  const startMs = performance.now() - begun;
  t.diagnostic(`ready after ${startMs.toFixed(0)} ms`);
  assert.ok(startMs < 3000, `${startMs} ms`);
  assert.equal(await startHost({ name: 'a', memoryBytes: 64 * mib }), false, 'it runs already');
  const status = await hostStatus('a');
  assert.ok(status.state === 'running');
  assert.equal(status.report.memoryBytes, 64 * mib);
  assert.deepEqual(status.report.guests, []);
  assert.ok(isHost(status.report.pid));
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  assert.equal(lstatSync(join(dir, 'a.sock')).mode & 0o777, 0o600);
  assert.equal(statSync(join(dir, 'a.json')).mode & 0o777, 0o600);
  assert.equal(await stopHost('a'), true);
  assert.equal(await stopHost('a'), false);
  await until('the process ends', 1000, () => !isHost(status.report.pid));
  assert.deepEqual(readdirSync(dir).sort(), ['a.lock', 'a.log']);
  assert.deepEqual(await hostStatus('a'), { state: 'stopped' });
});

test('hosts of different names are apart', async (t) => {
  useRunDir(t);
  await startHost({ name: 'a', memoryBytes: 64 * mib });
  await startHost({ name: 'b', memoryBytes: 64 * mib });
  assert.notEqual(await runningPid('a'), await runningPid('b'));
  assert.equal(await stopHost('a'), true);
  await runningPid('b');
  assert.equal(await stopHost('b'), true);
});

test('two processes that need the host at once share one', async (t) => {
  const dir = useRunDir(t);
  const tools = await Promise.all([1, 2, 3].map(() => startTool(t, ['open'])));
  const pid = await runningPid('test');
  const log = readFileSync(join(dir, 'test.log'), 'utf8');
  assert.equal(log.match(/is ready/g)?.length, 1, log);
  for (const tool of tools) await tool.kill();
  assert.ok(isHost(pid), 'it outlives the tools that started it');
  assert.equal(await stopHost('test'), true);
});

test('a host ignores its terminal going away and ends on SIGTERM', async (t) => {
  const host = await startTestHost(t);
  const { pid } = await host.status();
  process.kill(pid, 'SIGHUP');
  process.kill(pid, 'SIGINT');
  assert.equal((await host.status()).pid, pid);
  process.kill(pid, 'SIGTERM');
  await until('the host ends', 3000, () => !isHost(pid));
  assert.deepEqual(await hostStatus('test'), { state: 'stopped' });
  await assert.rejects(host.list(), hasCode('HOST_DIED', /'test' ended/));
});

test('stop refuses while guests run, unless forced', async (t) => {
  const host = await startTestHost(t);
  await host.create(guestSpec('web1'), { paused: false });
  await assert.rejects(stopHost('test'), hasCode('DOMAIN_WRONG_STATE', /web1/));
  assert.equal((await host.find('web1')).name, 'web1');
  assert.equal(await stopHost('test', { force: true }), true);
  assert.deepEqual(await hostStatus('test'), { state: 'stopped' });
});

test('a killed host is reported once, with its guests; the call after that has a fresh one', async (t) => {
  const host = await startTestHost(t);
  await host.create(guestSpec('web1'), { paused: false });
  await host.create(guestSpec('web2'), { paused: true });
  await host.create(guestSpec('gone'), { paused: true });
  await host.destroy((await host.find('gone')).domid);
  const { pid } = await host.status();
  process.kill(pid, 'SIGKILL');
  await assert.rejects(host.list(), hasCode('HOST_DIED'));
  assert.deepEqual(await hostStatus('test'), { state: 'died', lostGuests: ['web1', 'web2'] });
  await assert.rejects(openHost('embedded:test'), hasCode('HOST_DIED', /with it went web1, web2/));
  const fresh = await openEmbeddedHost('test');
  assert.deepEqual(await fresh.list(), []);
  assert.notEqual((await fresh.status()).pid, pid);
  await fresh.close();
});

test('a request under way when the host is killed ends with HOST_DIED', async (t) => {
  const host = await startTestHost(t);
  const domid = await host.create(guestSpec('deaf', { program: 'counter', rate: 1000, deaf: true }), {
    paused: false,
  });
  const lease = await host.acquire(domid, 'save');
  const suspended = assert.rejects(host.suspend(lease, 60_000), hasCode('HOST_DIED'));
  process.kill((await host.status()).pid, 'SIGKILL');
  await suspended;
});

test('a killed host without guests is replaced without a word', async (t) => {
  const host = await startTestHost(t);
  process.kill((await host.status()).pid, 'SIGKILL');
  await assert.rejects(host.list(), hasCode('HOST_DIED'));
  const fresh = await openEmbeddedHost('test');
  assert.deepEqual(await fresh.list(), []);
  await fresh.close();
});

test('a host that cannot start says why, with the end of its log', async (t) => {
  const dir = useRunDir(t);
  mkdirSync(join(dir, 'a.sock'), { recursive: true, mode: 0o700 });
  const why = /'a' ended at once \(1\); its log ends:\n[^]*a\.sock/;
  await assert.rejects(startHost({ name: 'a', memoryBytes: 64 * mib }), hasCode('HOST_UNAVAILABLE', why));
  for (const memoryBytes of [0, -1, NaN, 4 * mib - 1, 2 ** 44])
    await assert.rejects(startHost({ name: 'b', memoryBytes }), hasCode('USAGE'), String(memoryBytes));
});

test('a run directory of somebody else, or a link, is refused', async (t) => {
  const dir = useRunDir(t);
  const elsewhere = join(dirname(dir), 'elsewhere');
  mkdirSync(elsewhere);
  symlinkSync(elsewhere, dir);
  await assert.rejects(startHost({ name: 'a' }), hasCode('HOST_UNAVAILABLE', /symbolic link/));
  process.env.DORMOUSE_RUN_DIR = join(dir, 'missing', 'deeper');
  await assert.rejects(startHost({ name: 'a' }), hasCode('HOST_UNAVAILABLE', /cannot be made/));
  const file = join(dirname(dir), 'file');
  writeFileSync(file, '');
  process.env.DORMOUSE_RUN_DIR = file;
  await assert.rejects(startHost({ name: 'a' }), hasCode('HOST_UNAVAILABLE', /not a directory/));
  assert.deepEqual(readdirSync(elsewhere), []);
  if (process.geteuid?.() !== 0) return;
  chownSync(elsewhere, 65_534, 65_534);
  process.env.DORMOUSE_RUN_DIR = elsewhere;
  await assert.rejects(startHost({ name: 'a' }), hasCode('HOST_UNAVAILABLE', /belongs to user 65534/));
});

test('a run directory that others could enter is closed', async (t) => {
  const dir = useRunDir(t);
  mkdirSync(dir);
  chmodSync(dir, 0o777);
  await startHost({ name: 'a', memoryBytes: 64 * mib });
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  await stopHost('a');
});

test('names that are no names are refused', async (t) => {
  useRunDir(t);
  for (const name of ['', '../x', 'a/b', '.hidden', 'x'.repeat(40)])
    await assert.rejects(startHost({ name }), hasCode('USAGE'), name);
  for (const spec of ['', 'nonsense', 'embedded:', 'xen:0'])
    await assert.rejects(openHost(spec), hasCode('USAGE'), spec);
  await assert.rejects(openHost('xen'), hasCode('HOST_UNAVAILABLE', /machine does not run on Xen/));
});

test('a stale socket and a stale lock are no obstacle', async (t) => {
  const dir = useRunDir(t);
  mkdirSync(dir, { mode: 0o700 });
  writeFileSync(join(dir, 'a.lock'), '');
  writeFileSync(join(dir, 'a.sock'), '');
  await startHost({ name: 'a', memoryBytes: 64 * mib });
  await stopHost('a');
  assert.ok(!existsSync(join(dir, 'a.sock')));
});

test('a host that is stopped and started at the same time ends up running', async (t) => {
  useRunDir(t);
  for (let round = 0; round < 3; round++) {
    await startHost({ name: 'a', memoryBytes: 64 * mib });
    const [, started] = await Promise.allSettled([stopHost('a'), openEmbeddedHost('a')]);
    if (started.status === 'fulfilled') await started.value.close();
    else
      assert.ok(
        hasCode('HOST_DIED')(started.reason) || hasCode('HOST_UNAVAILABLE')(started.reason),
        String(started.reason),
      );
  }
  await startHost({ name: 'a', memoryBytes: 64 * mib });
  await runningPid('a');
});

test('hostile peers are cut off and nothing else happens', async (t) => {
  const host = await startTestHost(t);
  const domid = await host.create(guestSpec('web1'), { paused: false });
  const socketPath = join(process.env.DORMOUSE_RUN_DIR ?? '', 'test.sock');
  const huge = Buffer.alloc(8, 0xff);
  const deep = Buffer.alloc(4 + 60_000, 0x91);
  deep.writeUInt32LE(60_000);
  const bigArray = Buffer.from([5, 0, 0, 0, 0xdd, 0xff, 0xff, 0xff, 0xff]);
  const noHello = Buffer.from([
    12, 0, 0, 0, 0x82, 0xa2, 0x69, 0x64, 1, 0xa2, 0x6f, 0x70, 0xa4, 0x6c, 0x69, 0x73,
  ]);
  const garbage = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) & 255));
  for (const bytes of [huge, deep, bigArray, noHello, garbage]) {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the host did not cut the connection')), 5000);
      const socket = connect(socketPath, () => socket.write(bytes));
      socket.on('error', () => undefined);
      socket.resume();
      socket.on('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
  assert.equal((await host.find('web1')).domid, domid);
  assert.equal((await host.status()).connections, 1);
});

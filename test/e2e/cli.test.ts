/** The command line as a user has it: processes of their own, a private run directory, the embedded host. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  copyFileSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/addon.js';

const program = join(packageRoot, 'bin/dormouse');
let dir: string;
let env: NodeJS.ProcessEnv;

before(() => {
  dir = mkdtempSync(join(tmpdir(), 'dormouse-cli-'));
  env = { ...process.env, DORMOUSE_RUN_DIR: join(dir, 'run'), DORMOUSE_HOST: '' };
  expectOk('host', 'start', '--memory', '1G');
});

after(() => {
  dormouse('host', 'stop', '--force');
  rmSync(dir, { recursive: true, force: true });
});

function dormouse(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(program, args, { cwd: dir, env, encoding: 'utf8', timeout: 60_000 });
}

function expectOk(...args: string[]): string {
  const { status, stdout, stderr } = dormouse(...args);
  assert.equal(status, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

function start(...args: string[]): ChildProcess {
  return spawn(program, args, { cwd: dir, env, stdio: ['ignore', 'pipe', 'pipe'] });
}

async function untilFile(path: string): Promise<void> {
  for (let tries = 0; !existsSync(path); tries++) {
    assert.ok(tries < 1500, `${path} did not appear`);
    await sleep(20);
  }
}

function state(domain: string): string {
  return expectOk('domstate', domain).trim();
}

function json(...args: string[]): Record<string, unknown> {
  return JSON.parse(expectOk(...args, '--json')) as Record<string, unknown>;
}

test('a guest is created, checkpointed, saved, restored, and is what its image says', () => {
  writeFileSync(
    join(dir, 'tour.cfg'),
    'name = "tour"\nmemory = 32\nvcpus = 2\nprogram = "writer"\nrate = 2000\nkernel = "/boot/k" # of xl\n',
  );
  const created = dormouse('create', 'tour.cfg', 'seed=5');
  assert.equal(created.status, 0, created.stderr);
  assert.match(created.stderr, /settings without meaning here: kernel/u);
  assert.match(expectOk('list', 'tour'), /^tour {37} +\d+ +32 +2 {5}[r-][b-]---- {2} +\d+\.\d\n/mu);

  expectOk('checkpoint', '--count', '2', 'tour', 'point-%d.dmi');
  expectOk('checkpoint', '--mode', 'cooperative', 'tour', 'cooperative.dmi');
  expectOk('save', '-c', 'tour', 'kept.dmi');
  assert.match(state('tour'), /^(running|idle)$/u);
  expectOk('save', 'tour', 'saved.dmi');
  assert.equal(dormouse('domstate', 'tour').status, 4);

  expectOk('restore', '-p', 'saved.dmi');
  assert.equal(state('tour'), 'paused');
  assert.equal(expectOk('digest', 'tour'), expectOk('digest', '--image', 'saved.dmi'));
  expectOk('restore', '-p', '--name', 'twin', 'point-1.dmi');
  assert.equal(expectOk('digest', 'twin'), expectOk('digest', '--image', 'point-1.dmi'));
  expectOk('unpause', 'tour');
  for (const name of ['tour', 'twin']) expectOk('destroy', name);
  assert.equal(statSync(join(dir, 'saved.dmi')).mode & 0o777, 0o600);
  const inspected = json('image', 'inspect', 'saved.dmi') as { domain: { name: string; vcpus: number } };
  assert.deepEqual([inspected.domain.name, inspected.domain.vcpus], ['tour', 2]);
});

test('what is there already is not overwritten, and the guest runs on', () => {
  expectOk('create', 'name=keep', 'memory=16', 'program=counter', 'rate=1000');
  writeFileSync(join(dir, 'precious'), 'data');
  for (const path of ['precious', '.', 'no/such/folder/file']) {
    const refused = dormouse('save', 'keep', path);
    assert.equal(refused.status, 1, refused.stderr);
    assert.match(refused.stderr, /^dormouse: .+\n(.+\n)*? {2}guest: untouched\n {2}advice: .+\n$/u);
  }
  assert.equal(statSync(join(dir, 'precious')).size, 4);
  assert.match(state('keep'), /^(running|idle)$/u);
  expectOk('destroy', 'keep');
});

test('damage to an image is found, named, and not restored', () => {
  expectOk('create', 'name=frail', 'memory=16', 'program=writer', 'rate=1000');
  expectOk('save', 'frail', 'frail.dmi');
  assert.match(expectOk('image', 'verify', 'frail.dmi'), /result: +whole/u);
  const path = join(dir, 'frail.dmi');
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  const at = Math.floor(statSync(path).size / 2);
  readSync(fd, byte, 0, 1, at);
  byte[0] = (byte[0] ?? 0) ^ 1;
  writeSync(fd, byte, 0, 1, at);
  closeSync(fd);
  const verified = dormouse('image', 'verify', 'frail.dmi', '--json');
  assert.equal(verified.status, 3, verified.stderr);
  const { findings } = JSON.parse(verified.stdout) as { findings: { chunk?: number; offset?: number }[] };
  assert.ok(findings.some(({ chunk, offset }) => chunk !== undefined && offset !== undefined));
  const restored = dormouse('restore', 'frail.dmi', '--json');
  assert.equal(restored.status, 12, restored.stderr);
  assert.equal(restored.stdout, '');
  const told = JSON.parse(restored.stderr.trimEnd().split('\n').at(-1) ?? '') as {
    name: string;
    guest: string;
  };
  assert.deepEqual([told.name, told.guest], ['IMAGE_DAMAGED', 'none']);
  assert.equal(dormouse('domstate', 'frail').status, 4);
  assert.equal(dormouse('restore', 'absent.dmi').status, 10);
});

test('a tree that is not built says how to build it: a clone and a package', () => {
  const programs = ['dormouse', 'dormouse-save-helper', 'dormouse-save-helper-stock'];
  for (const [tree, how] of [
    ['clone', /npm ci --ignore-scripts && npm run build/u],
    ['package', /node scripts\/install\.mjs/u],
  ] as const) {
    const bare = join(dir, tree, 'bin');
    mkdirSync(bare, { recursive: true });
    if (tree === 'clone') mkdirSync(join(dir, tree, 'src'));
    copyFileSync(join(dirname(program), 'start.mjs'), join(bare, 'start.mjs'));
    for (const name of programs) {
      copyFileSync(join(dirname(program), name), join(bare, `${name}.mjs`));
      const ran = spawnSync(process.execPath, [join(bare, `${name}.mjs`), 'list'], { encoding: 'utf8' });
      assert.equal(ran.status, 5);
      assert.match(ran.stderr, /^dormouse: not built yet; run `/u);
      assert.match(ran.stderr, how);
    }
  }
});

test('so does the build where nothing is installed', () => {
  const scripts = join(dir, 'fresh', 'scripts');
  cpSync(join(packageRoot, 'scripts'), scripts, { recursive: true });
  const ran = spawnSync(process.execPath, [join(scripts, 'build.mjs')], { encoding: 'utf8' });
  assert.equal(ran.status, 1);
  assert.match(ran.stderr, /^dormouse: .*: npm ci --ignore-scripts && npm run build\n$/u);
});

test('a reader that goes away is no error', () => {
  const piped = spawnSync('bash', ['-c', `set -o pipefail; '${program}' list --help | true`], {
    env,
    encoding: 'utf8',
  });
  assert.deepEqual([piped.status, piped.stderr], [0, '']);
});

test('SIGINT, SIGTERM and SIGKILL in the middle leave the guest running and no half-written file', async () => {
  expectOk('create', 'name=held', 'memory=64', 'program=writer', 'rate=2000');
  for (const [name, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGKILL', null],
  ] as const) {
    const child = start('checkpoint', '--count', '100000', 'held', `${name}-%d.dmi`);
    const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
    await untilFile(join(dir, `${name}-2.dmi`));
    child.kill(name);
    const [status] = await ended;
    assert.equal(status, code, name);
    assert.match(state('held'), /^(running|idle)$/u);
    const files = readdirSync(dir).filter((file) => file.startsWith(name));
    for (const file of files) {
      assert.match(file, /^SIG\w+-\d+\.dmi$/u);
      expectOk('image', 'verify', file);
      rmSync(join(dir, file));
    }
    expectOk('checkpoint', 'held', `${name}-after.dmi`);
  }
  expectOk('destroy', 'held');
});

test('a host that dies is told once, with its guests, and the next one starts', async () => {
  expectOk('host', 'start', '--name', 'frail', '--memory', '256M');
  expectOk('create', '--host', 'embedded:frail', 'name=lost', 'memory=16', 'program=idle');
  assert.equal(dormouse('host', 'stop', '--name', 'frail').status, 4);
  const { pid } = json('host', 'status', '--name', 'frail') as { pid: number };
  process.kill(pid, 'SIGKILL');
  for (let tries = 0; tries < 500; tries++) {
    if (json('host', 'status', '--name', 'frail').state !== 'running') break;
    await sleep(10);
  }
  assert.deepEqual(json('host', 'status', '--name', 'frail').lostGuests, ['lost']);
  const told = dormouse('list', '--host', 'embedded:frail');
  assert.equal(told.status, 5);
  assert.match(told.stderr, /died; with it went lost\n(.*\n)? {2}guest: gone\n/u);
  assert.doesNotMatch(expectOk('list', '--host', 'embedded:frail'), /lost/u);
  expectOk('host', 'stop', '--name', 'frail');
});

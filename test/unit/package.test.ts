/** What `npm pack` puts into the package is what installing it takes; and what a machine lacks is said at once. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../src/addon.js';

interface Package {
  readonly engines: { readonly node: string };
  readonly bin: Readonly<Record<string, string>>;
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
}

const read = (path: string): string => readFileSync(join(packageRoot, path), 'utf8');
const described = JSON.parse(read('package.json')) as Package;

function packed(): string[] {
  const done = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    ...{ cwd: packageRoot, encoding: 'utf8' },
    env: { ...process.env, npm_config_dry_run: undefined },
  });
  assert.equal(done.status, 0, done.stderr);
  const [made] = JSON.parse(done.stdout) as [{ files: { path: string }[] }];
  return made.files.map(({ path }) => path);
}

/** A script and the project's files that it imports, and what it imports beside them. */
function closure(path: string, seen = new Set<string>(), foreign = new Set<string>()): [string[], string[]] {
  seen.add(path);
  for (const [, from = ''] of read(path).matchAll(
    /(?:from|import\(|require\.resolve\(|\.resolve\()\s*'([^']+)'/gu,
  )) {
    const local = from.startsWith('.') ? join(dirname(path), from) : undefined;
    if (local === undefined) foreign.add(from);
    else if (!seen.has(local)) closure(local, seen, foreign);
  }
  return [[...seen], [...foreign]];
}

test('the package has all that its installation and its programs use, and nothing else', () => {
  const files = new Set(packed());
  const started = [...(described.scripts.install ?? '').matchAll(/scripts\/[\w-]+\.mjs/gu)].map(
    ([path]) => path,
  );
  const fromGyp = [...read('binding.gyp').matchAll(/node (scripts\/[\w-]+\.mjs)/gu)].map(
    ([, path = '']) => path,
  );
  assert.ok(started.length > 0 && fromGyp.length > 1);
  const native = readdirSync(join(packageRoot, 'native'), { recursive: true, encoding: 'utf8' })
    .map((name) => join('native', name))
    .filter((name) => /\.(cc|h)$/u.test(name) && !name.startsWith('native/fuzz/'));
  const bundled = readdirSync(join(packageRoot, 'dist/bundle')).filter((name) => !name.endsWith('.cache'));
  const needed = [
    ...[...started, ...fromGyp, ...Object.values(described.bin)].flatMap((path) => closure(path)[0]),
    ...bundled.map((name) => join('dist/bundle', name)),
    ...[...native, 'binding.gyp', 'LICENSE', 'README.md', 'docs/operating.md'],
  ];
  for (const path of needed) assert.ok(files.has(path), `${path} is not in the package`);
  for (const path of files) {
    assert.doesNotMatch(path, /^(src|test|bench|\.ci)\/|\.cache$|\.map$/u);
    if (path.startsWith('scripts/')) assert.ok(needed.includes(path), `${path} is of no use in the package`);
  }
});

test('what installing the package imports is of Node.js or among its dependencies', () => {
  const used = ['scripts/install.mjs', ...Object.values(described.bin)]
    .flatMap((path) => closure(path)[1])
    .filter((name) => !name.startsWith('node:'))
    .map((name) => name.split('/')[0] ?? '');
  // LZ4's sources are copied into the package.
  const outside = new Set(used.filter((name) => name !== 'lz4'));
  for (const name of outside) assert.ok(Object.hasOwn(described.dependencies, name), name);
  assert.deepEqual([...outside, 'node-addon-api'].sort(), Object.keys(described.dependencies).sort());
});

test('all that a machine lacks is named in one message, and nothing is installed without being asked', () => {
  const script = join(packageRoot, 'scripts/needs.mjs');
  const env = { PATH: '/nonexistent', DORMOUSE_LAB_CACHE: join(tmpdir(), 'nonexistent') };
  const done = spawnSync(process.execPath, [script, 'build', 'lab'], { env, encoding: 'utf8' });
  assert.deepEqual([done.status, done.stdout], [5, '']);
  assert.equal(done.stderr.split('\n').length, 2, done.stderr);
  const line = /sudo apt-get update && sudo apt-get install (.*)\n/u.exec(done.stderr)?.[1] ?? '';
  const commands = ['python3', 'make', 'g++', 'qemu-system-x86', 'busybox-static', 'xz-utils', 'cpio', 'gcc'];
  for (const name of commands) assert.ok(line.split(' ').includes(name), `${name}: ${done.stderr}`);
  assert.match(done.stderr, /the package lists of Debian 12/u);
});

test('a Node.js older than package.json allows is told apart', async () => {
  const { isTooOld } = (await import(pathToFileURL(join(packageRoot, 'scripts/needs.mjs')).href)) as {
    isTooOld: (version: string) => boolean;
  };
  assert.equal(described.engines.node, '>=20.19');
  assert.deepEqual(['18.20.4', '20.18.3', '20.19.0', '22.1.0'].map(isTooOld), [true, true, false, false]);
});

test('what installs the missing does not read the script that is piped in', () => {
  const bin = mkdtempSync(join(tmpdir(), 'dormouse-apt-'));
  writeFileSync(join(bin, 'apt-get'), '#!/bin/sh\n/bin/cat >/dev/null\necho "$@" >>"$0.calls"\n', {
    mode: 0o755,
  });
  const env = { PATH: bin, CI: '1', DORMOUSE_LAB_CACHE: join(bin, 'nonexistent') };
  const source = `${process.execPath} ${join(packageRoot, 'scripts/needs.mjs')} lab; /bin/cat`;
  const done = spawnSync('/bin/sh', ['-c', source], { env, encoding: 'utf8', input: 'the rest of it\n' });
  assert.equal(done.stdout, 'the rest of it\n');
  // Others than root are only told.
  const calls = process.getuid?.() === 0 ? /^update .*\ninstall .*qemu-system-x86/u : /^$/u;
  const made = join(bin, 'apt-get.calls');
  assert.match(existsSync(made) ? readFileSync(made, 'utf8') : '', calls);
  rmSync(bin, { recursive: true });
});

// Runs a compiled script, first installing and building what is missing or stale, and saying so.
// usage: with-build.mjs [--xen] FILE.js [ARG...]
//   --xen  what is built must have the xen host, and the machine what the lab needs
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { need } from './needs.mjs';
import { xenRelease } from './xen-release.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function newest(dir, ends) {
  let latest = 0;
  for (const entry of readdirSync(join(root, dir), { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || !ends.some((end) => entry.name.endsWith(end))) continue;
    latest = Math.max(latest, statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs);
  }
  return latest;
}

function stale() {
  const addon = join(root, 'build/Release/dormouse.node');
  const compiled = join(root, 'dist/lab');
  if (!existsSync(addon) || !existsSync(compiled)) return true;
  const xen = xenRelease();
  if (xen && !existsSync(join(root, `build/Release/dormouse_xen_${xen}.node`))) return true;
  const native = Math.max(newest('native', ['.cc', '.h']), statSync(join(root, 'binding.gyp')).mtimeMs);
  const scripts = Math.max(
    // How the programs are bundled, and the start whose wrapping is part of their code cache.
    ...['scripts/bundle.mjs', 'scripts/code_cache.mjs', 'bin/start.mjs'].map(
      (path) => statSync(join(root, path)).mtimeMs,
    ),
    newest('src', ['.ts']),
    newest('test', ['.ts']),
    newest('bench', ['.ts']),
  );
  return native > statSync(addon).mtimeMs || scripts > statSync(compiled).mtimeMs;
}

function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (done.error) throw done.error;
  if (done.status !== 0) process.exit(done.status ?? 1);
}

const args = process.argv.slice(2);
const xen = args[0] === '--xen';
if (xen) args.shift();
const installed = existsSync(join(root, 'node_modules/.package-lock.json'));
// All that is missing, for whatever is to come, is named at once.
const needed = [...(installed && !stale() ? [] : ['build']), ...(xen ? ['lab'] : [])];
if (needed.length > 0) need(needed);
if (!installed) {
  console.error('dormouse: installing the packages of package-lock.json (npm ci) ...');
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
}
if (stale()) {
  console.error('dormouse: building the addon and compiling TypeScript (npm run build) ...');
  run(process.execPath, [join(root, 'scripts/build.mjs')]);
}
const [script, ...rest] = args;
const child = spawnSync(process.execPath, [join(root, script), ...rest], { stdio: 'inherit' });
process.exit(child.status ?? 1);

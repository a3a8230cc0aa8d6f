// Builds the addon and compiles TypeScript: what `npm run build` does.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpus } from 'node:os';
import { bundle } from './bundle.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);

function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (done.error) throw done.error;
  if (done.status !== 0) process.exit(done.status ?? 1);
}

/** node-gyp wants Node's headers: those beside this node if they are there, else it fetches its own. */
function headerArguments() {
  const prefix = join(dirname(process.execPath), '..');
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

/** What the compiler wrote of a source that is gone: a test among it would still be run. */
function removeOrphans() {
  const dist = join(root, 'dist');
  if (!existsSync(dist)) return;
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (relative(dist, path).match(/^(bundle|lab)\b/)) continue;
    const source = relative(dist, path).replace(/\.(js|js\.map)$/, '.ts');
    if (entry.isFile() && source.endsWith('.ts') && !existsSync(join(root, source))) rmSync(path);
  }
}

export async function build() {
  removeOrphans();
  const gyp = require.resolve('node-gyp/bin/node-gyp.js');
  const steps =
    existsSync(join(root, 'build/config.gypi')) && !process.argv.includes('--clean') ? [] : ['clean'];
  for (const step of [...steps, 'configure'])
    run(process.execPath, [gyp, step, '--loglevel=warn', ...headerArguments()]);
  run(process.execPath, [gyp, 'build', '--loglevel=warn', `--jobs=${cpus().length}`]);
  run(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', '.']);
  await bundle(root);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await build();

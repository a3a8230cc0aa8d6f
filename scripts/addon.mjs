// Builds the addon with node-gyp, and the xen host where its headers are.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);

/** Runs a command in the project's folder; the process ends with it if it fails. */
export function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (done.error) throw done.error;
  if (done.status !== 0) process.exit(done.status ?? 1);
}

/** node-gyp wants Node's headers: those beside this node if they are there, else it fetches its own. */
function headerArguments() {
  const prefix = join(dirname(process.execPath), '..');
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

export function buildAddon({ clean = false } = {}) {
  const gyp = require.resolve('node-gyp/bin/node-gyp.js');
  const steps = existsSync(join(root, 'build/config.gypi')) && !clean ? [] : ['clean'];
  for (const step of [...steps, 'configure'])
    run(process.execPath, [gyp, step, '--loglevel=warn', ...headerArguments()]);
  run(process.execPath, [gyp, 'build', '--loglevel=warn', `--jobs=${cpus().length}`]);
}

// eslint, prettier and (where it is installed) clang-format. `--fix` mends what can be mended.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const fix = process.argv.includes('--fix');
let failed = false;

function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (done.error) throw done.error;
  failed ||= done.status !== 0;
}

function nativeFiles(dir = 'native') {
  return readdirSync(join(root, dir), { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return entry.name === 'third_party' ? [] : nativeFiles(path);
    return /\.(cc|h)$/.test(entry.name) ? [path] : [];
  });
}

const bin = (name) => join(root, 'node_modules/.bin', name);
if (!existsSync(bin('eslint'))) {
  console.error('dormouse: run `npm ci --ignore-scripts` first');
  process.exit(1);
}
run(bin('eslint'), ['src', 'test', 'bench', 'scripts', 'bin', ...(fix ? ['--fix'] : [])]);
run(bin('prettier'), [
  fix ? '--write' : '--check',
  '--log-level=warn',
  'src',
  'test',
  'bench',
  'scripts',
  'bin/*.mjs',
  '*.json',
  '*.mjs',
]);
if (spawnSync('clang-format', ['--version']).error)
  console.error('lint: clang-format is not installed; C++ not checked (apt-get install clang-format)');
else run('clang-format', [...(fix ? ['-i'] : ['--dry-run', '--Werror']), ...nativeFiles()]);
process.exit(failed ? 1 : 0);

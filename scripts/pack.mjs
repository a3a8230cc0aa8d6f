// What is in the package of `npm pack` and nowhere else in the project. usage: pack.mjs [--undo]
// The C sources of LZ4 are copied, so that installing the package does not build all of npm's lz4 for the sake of one file.
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { lz4Dir } from './lz4-dir.mjs';

const into = join(dirname(fileURLToPath(import.meta.url)), '../dist/lz4');

rmSync(into, { recursive: true, force: true });
if (!process.argv.includes('--undo')) {
  const from = lz4Dir();
  mkdirSync(into, { recursive: true });
  for (const name of ['lz4.c', 'lz4.h', 'LICENSE']) cpSync(join(from, name), join(into, name));
}

// Prints where LZ4's C sources are, seen from the project's folder: in the package that `npm pack` made, else in npm's lz4.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Absolute. */
export function lz4Dir() {
  const packed = join(root, 'dist/lz4');
  if (existsSync(packed)) return packed;
  const found = createRequire(import.meta.url).resolve('lz4/package.json');
  return join(dirname(found), 'deps/lz4/lib');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(relative(root, lz4Dir()));

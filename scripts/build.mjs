// Builds the addon and compiles TypeScript: what `npm run build` does.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAddon, run } from './addon.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);

/** What the compiler wrote of a source that is gone: a test among it would still be run. */
function removeOrphans() {
  const dist = join(root, 'dist');
  if (!existsSync(dist)) return;
  for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (relative(dist, path).match(/^(bundle|lab|lz4)\b/)) continue;
    const source = relative(dist, path).replace(/\.(js|js\.map)$/, '.ts');
    if (entry.isFile() && source.endsWith('.ts') && !existsSync(join(root, source))) rmSync(path);
  }
}

export async function build() {
  if (!existsSync(join(root, 'node_modules/esbuild'))) {
    process.stderr.write(
      'dormouse: its packages are not installed: npm ci --ignore-scripts && npm run build\n',
    );
    process.exit(1);
  }
  const { bundle } = await import('./bundle.mjs');
  removeOrphans();
  buildAddon({ clean: process.argv.includes('--clean') });
  run(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', '.']);
  await bundle(root);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await build();

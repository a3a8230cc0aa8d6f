// Puts what a process loads into few files, dist/bundle: a command then starts in half the time, as it need not find and
// compile two hundred modules. Parts that only some verbs use stay files of their own, loaded when they are used.
import { build } from 'esbuild';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** A file of dist/bundle for each: what bin/ starts, and by the names they are found by: task.js, server_main.js and worker.js. */
const entryPoints = (root) => ({
  dormouse: join(root, 'dist/src/cli/main.js'),
  'dormouse-save-helper': join(root, 'dist/src/helper/main.js'),
  server_main: join(root, 'dist/src/host/embedded/server_main.js'),
  task: join(root, 'dist/src/worker/task.js'),
  // piscina starts the file of this name that is beside it.
  worker: join(dirname(createRequire(import.meta.url).resolve('piscina')), 'worker.js'),
});

/** CommonJS packages among them look for these. */
const banner = `import { createRequire as createRequireOfBundle } from 'node:module';
const require = createRequireOfBundle(import.meta.url);
const __dirname = import.meta.dirname;`;

/** Bundles the compiled dist/src. A bundle that is there is replaced once the new one is whole. */
export async function bundle(root) {
  const outdir = join(root, 'dist/bundle');
  const partial = `${outdir}.${process.pid}.partial`;
  await build({
    entryPoints: entryPoints(root),
    outdir: partial,
    ...{ bundle: true, splitting: true, format: 'esm', platform: 'node', target: 'node20.19' },
    // Without the addon for long strings that node-index.js looks for: our messages have none.
    alias: { msgpackr: join(root, 'node_modules/msgpackr/index.js') },
    // An optional addon of piscina's, which goes without where it is not found.
    external: ['@napi-rs/nice'],
    banner: { js: banner },
    logLevel: 'warning',
  });
  if (existsSync(outdir)) rmSync(outdir, { recursive: true });
  renameSync(partial, outdir);
}

// Puts what a process loads into few files, in dist/bundle: a command then starts in half the time, as it need not find and
// compile two hundred modules. Parts that only some verbs use stay files of their own, loaded when they are used.
import { build } from 'esbuild';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** What threads run, found beside whatever starts them: ours, and piscina's. */
const threads = {
  task: 'dist/src/worker/task.js',
  worker: join(dirname(createRequire(import.meta.url).resolve('piscina')), 'worker.js'),
};
/** By folder: the name and the compiled source of each file that something outside of the folder names. */
const bundles = {
  'dist/bundle': {
    dormouse: 'dist/src/cli/main.js',
    'dormouse-save-helper': 'dist/src/helper/main.js',
    server_main: 'dist/src/host/embedded/server_main.js',
    ...threads,
  },
  // What the lab's tests run in dom0.
  'dist/lab': {
    ...Object.fromEntries(
      ['agent', 'host_checks', 'kill_checks', 'live_checks', 'victim'].map((name) => [
        name,
        `dist/test/xen-lab/${name}.js`,
      ]),
    ),
    elf_core: 'dist/test/support/elf_core.js',
    ...threads,
  },
};

/** CommonJS packages among them look for these. */
const banner = `import { createRequire as createRequireOfBundle } from 'node:module';
const require = createRequireOfBundle(import.meta.url);
const __dirname = import.meta.dirname;`;

/** Makes one folder. One that is there is replaced once the new one is whole. */
async function bundleInto(root, folder, entries) {
  const outdir = join(root, folder);
  const partial = `${outdir}.${process.pid}.partial`;
  await build({
    entryPoints: entries,
    absWorkingDir: root,
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

/** Bundles what is compiled in dist. */
export async function bundle(root) {
  for (const [folder, entries] of Object.entries(bundles)) await bundleInto(root, folder, entries);
}

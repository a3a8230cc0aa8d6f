// Puts what a process loads into one file, in dist/bundle: a command then starts in half the time, as it need not find and compile
// two hundred modules.
import { build } from 'esbuild';
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { writeCodeCaches } from './code_cache.mjs';

/** What threads run, found beside whatever starts them: ours, and piscina's. */
const threads = {
  task: 'dist/src/worker/task.js',
  worker: join(dirname(createRequire(import.meta.url).resolve('piscina')), 'worker.js'),
};
/**
 * By folder: how its files are made, the name and the compiled source of each that something outside of the folder names, and whether
 * bin/ starts them.
 */
const bundles = {
  'dist/bundle': {
    // CommonJS, as only that can be compiled ahead. What only some verbs use is in the one file too, and runs when it is used.
    format: {
      format: 'cjs',
      define: { 'import.meta.url': 'urlOfBundle' },
      banner: { js: "const urlOfBundle = require('node:url').pathToFileURL(__filename).href;" },
    },
    entries: {
      dormouse: 'dist/src/cli/program/main.js',
      'dormouse-save-helper': 'dist/src/helper/main.js',
      server_main: 'dist/src/host/embedded/server_main.js',
      ...threads,
    },
    started: true,
  },
  // What the lab's tests run in dom0.
  'dist/lab': {
    format: {
      format: 'esm',
      splitting: true,
      // CommonJS packages among them look for these.
      banner: {
        js: `import { createRequire as createRequireOfBundle } from 'node:module';
const require = createRequireOfBundle(import.meta.url);
const __dirname = import.meta.dirname;`,
      },
    },
    entries: {
      ...Object.fromEntries(
        [
          'agent',
          'content_checks',
          'host_checks',
          'kill_checks',
          'live_checks',
          'trust_checks',
          'victim',
        ].map((name) => [name, `dist/test/xen-lab/${name}.js`]),
      ),
      elf_core: 'dist/test/support/elf_core.js',
      ...threads,
    },
  },
};

/** The licenses of the packages whose code is in a folder's files: they go where that goes. */
function licensesOf(root, inputs) {
  const folders = new Set(
    Object.keys(inputs).flatMap((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(path) ?? []),
  );
  return [...folders].sort().map((folder) => {
    const file = readdirSync(join(root, folder)).find((name) => /^licen[sc]e/i.test(name));
    if (file === undefined) throw new Error(`${folder} has no license file`);
    return `${folder.slice('node_modules/'.length)}\n\n${readFileSync(join(root, folder, file), 'utf8').trim()}\n`;
  });
}

/** Makes one folder. One that is there is replaced once the new one is whole. */
async function bundleInto(root, folder, { format, entries, started = false }) {
  const outdir = join(root, folder);
  const partial = `${outdir}.${process.pid}.partial`;
  const { metafile } = await build({
    ...format,
    entryPoints: entries,
    absWorkingDir: root,
    outdir: partial,
    ...{ bundle: true, platform: 'node', target: 'node20.19' },
    // Without the addon for long strings that node-index.js looks for: our messages have none.
    alias: { msgpackr: join(root, 'node_modules/msgpackr/index.js') },
    // An optional addon of piscina's, which goes without where it is not found.
    external: ['@napi-rs/nice'],
    logLevel: 'warning',
    metafile: true,
  });
  const type = format.format === 'cjs' ? 'commonjs' : 'module';
  writeFileSync(join(partial, 'package.json'), `${JSON.stringify({ type })}\n`);
  writeFileSync(join(partial, 'LICENSES.txt'), licensesOf(root, metafile.inputs).join('\n----\n\n'));
  if (started) writeCodeCaches(partial);
  if (existsSync(outdir)) rmSync(outdir, { recursive: true });
  renameSync(partial, outdir);
}

/** Bundles what is compiled in dist. */
export async function bundle(root) {
  for (const [folder, how] of Object.entries(bundles)) await bundleInto(root, folder, how);
}

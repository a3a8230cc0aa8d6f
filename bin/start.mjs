// Starts a program of dist/bundle, or says what is missing.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Script } from 'node:vm';

/** A CommonJS file as the function that Node.js makes of one. */
export function moduleScript(filename, cachedData) {
  const source = readFileSync(filename, 'utf8');
  return new Script(`(function (exports, require, module, __filename, __dirname) {${source}\n})`, {
    filename,
    cachedData,
  });
}

/** Runs a file with the code cache that the build wrote beside it (scripts/bundle.mjs), if it is there. */
function run(filename) {
  const cache = `${filename}.cache`;
  const script = moduleScript(filename, existsSync(cache) ? readFileSync(cache) : undefined);
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(filename), module, filename, dirname(filename));
}

export function start(name) {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const program = `${root}dist/bundle/${name}`;
  if (existsSync(program) && existsSync(`${root}build/Release/dormouse.node`)) {
    run(program);
    return;
  }
  const packed = !existsSync(`${root}src`);
  const how = packed ? 'node scripts/install.mjs' : 'npm ci --ignore-scripts && npm run build';
  process.stderr.write(`dormouse: not built yet; run \`${how}\` in ${root}\n`);
  process.exitCode = 5;
}

// Starts a compiled program of dist/bundle, or says what is missing.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export async function start(name) {
  const program = new URL(`../dist/bundle/${name}`, import.meta.url);
  const addon = new URL('../build/Release/dormouse.node', import.meta.url);
  if (existsSync(program) && existsSync(addon)) {
    await import(program.href);
    return;
  }
  const root = fileURLToPath(new URL('..', import.meta.url));
  process.stderr.write(
    `dormouse: not built yet; run \`npm ci --ignore-scripts && npm run build\` in ${root}\n`,
  );
  process.exitCode = 5;
}

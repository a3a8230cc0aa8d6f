/**
 * Runs the compiled tests: `npm test`, or `npm test -- NAME...` for the files whose path contains one of the names.
 * One process a file, so that a native crash fails one file.
 */
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);

function testFiles(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return entry.name === 'xen-lab' ? [] : testFiles(path);
    return entry.name.endsWith('.test.js') ? [path] : [];
  });
}

const files = testFiles(here).filter(
  (file) => wanted.length === 0 || wanted.some((name) => file.includes(name)),
);
if (files.length === 0) {
  process.stderr.write(`no test file matches ${wanted.join(', ')}\n`);
  process.exit(2);
}
// Images are signed: not with a key of the machine that runs the tests.
const keys = mkdtempSync(join(tmpdir(), 'dormouse-keys-'));
process.env.DORMOUSE_KEY_DIR = keys;
process.on('exit', () => rmSync(keys, { recursive: true, force: true }));
const events = run({ files: files.sort(), concurrency: 2 });
events.on('test:fail', (data) => {
  if (data.todo === undefined || data.todo === false) process.exitCode = 1;
});
const report: NodeJS.ReadWriteStream = new spec();
events.pipe(report).pipe(process.stdout);

/**
 * Runs the tests that need real Xen: `npm run test:xen`, or `npm run test:xen -- NAME...` for the files whose path contains
 * one of the names. One process a file, one after the other: each file starts the hosts it needs. When a file's process
 * ends, or this one does, in whatever way, the kernel ends their hosts.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { needBootFiles } from './image/build.js';
import { needProjectDisk } from './image/project.js';
import { endWithParent, spawnBound } from './process.js';

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2);
/** How long one file may take. */
const fileLimitMs = Number(process.env.DORMOUSE_LAB_FILE_MS ?? 900_000);

interface Outcome {
  name: string;
  seconds: number;
  problem: string | undefined;
}

function testFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.js'))
    .map((path) => join(dir, path))
    .filter((path) => wanted.length === 0 || wanted.some((name) => relative(here, path).includes(name)))
    .sort();
}

function count(tap: string, what: string): number {
  return Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(tap)?.[1] ?? Number.NaN);
}

/** What keeps a file from counting as passed: a test that was skipped did not show anything. */
function problemOf(code: number | null, tap: string): string | undefined {
  const passed = count(tap, 'pass');
  if (count(tap, 'fail') > 0) return `${count(tap, 'fail')} failed`;
  if (count(tap, 'cancelled') > 0) return `${count(tap, 'cancelled')} cancelled`;
  if (code !== 0) return code === null ? 'killed' : `ended with ${code}`;
  if (count(tap, 'skipped') + count(tap, 'todo') > 0) return 'has skipped tests';
  return passed > 0 ? undefined : 'has no test that passed';
}

async function runFile(path: string, tapFile: string): Promise<Outcome> {
  const start = Date.now();
  const reporters = ['spec', 'stdout', 'tap', tapFile];
  const args = reporters.map((value, at) => `--test-reporter${at % 2 === 0 ? '' : '-destination'}=${value}`);
  const child: ChildProcess = spawnBound(process.execPath, [...args, path], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), fileLimitMs);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearTimeout(timer);
  const seconds = (Date.now() - start) / 1000;
  const late = seconds * 1000 >= fileLimitMs ? `killed after ${fileLimitMs} ms` : undefined;
  return {
    name: relative(here, path),
    seconds,
    problem: late ?? problemOf(code, readFileSync(tapFile, 'utf8')),
  };
}

async function main(): Promise<number> {
  endWithParent();
  const files = testFiles(here);
  if (files.length === 0) {
    process.stderr.write(`no test file of the lab matches ${wanted.join(', ')}\n`);
    return 2;
  }
  needBootFiles();
  needProjectDisk();
  const dir = mkdtempSync(join(tmpdir(), `dormouse-lab-${process.pid}-`));
  const outcomes: Outcome[] = [];
  for (const [index, file] of files.entries()) outcomes.push(await runFile(file, join(dir, `${index}.tap`)));
  rmSync(dir, { recursive: true, force: true });
  for (const { name, seconds, problem } of outcomes)
    process.stdout.write(
      `${problem === undefined ? 'ok' : 'NOT OK'} ${name} ${seconds.toFixed(1)} s ${problem ?? ''}\n`,
    );
  return outcomes.every(({ problem }) => problem === undefined) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}

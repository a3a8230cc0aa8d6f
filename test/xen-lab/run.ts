/**
 * Runs the tests that need real Xen: `npm run test:xen`, or `npm run test:xen -- NAME...` for the files whose path contains
 * one of the names; with `--only PATTERN`, only the tests of these whose name matches. One process a file, as many at a time as the machine has room for (DORMOUSE_LAB_JOBS): each file starts the
 * hosts it needs, and what it says is printed when it has ended. When a file's process ends, or this one does, in whatever
 * way, the kernel ends their hosts.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, freemem, tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { fileLimitMs } from './extent.js';
import { needBootFiles } from './image/build.js';
import { needProjectDisk } from './image/project.js';
import { endWithParent, spawnBound } from './process.js';

const here = dirname(fileURLToPath(import.meta.url));
const { values, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string' } },
});
/** A host waits about half of its time; two of them take 8 GiB. */
const roomFor = Math.max(1, Math.min(availableParallelism(), Math.floor(freemem() / 9e9)));
const jobs = Number(process.env.DORMOUSE_LAB_JOBS ?? roomFor);
/** What takes longest is begun first, so that nothing long is left for the end. */
const longestFirst = ['restore', 'verbs', 'faults', 'xen_host', 'peers', 'checkpoint', 'helper'];

interface Outcome {
  name: string;
  seconds: number;
  problem: string | undefined;
}

function rank(path: string): number {
  const at = longestFirst.findIndex((name) => relative(here, path).startsWith(name));
  return at < 0 ? longestFirst.length : at;
}

function testFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.js'))
    .map((path) => join(dir, path))
    .filter((path) => wanted.length === 0 || wanted.some((name) => relative(here, path).includes(name)))
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
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
  const skipped = count(tap, 'skipped') + count(tap, 'todo');
  if (skipped > 0 && values.only === undefined) return 'has skipped tests';
  return passed > 0 ? undefined : 'has no test that passed';
}

async function runFile(path: string, tapFile: string): Promise<Outcome> {
  const start = Date.now();
  process.stdout.write(`lab: ${relative(here, path)} ...\n`);
  const reporters = ['spec', 'stdout', 'tap', tapFile];
  const args = reporters.map((value, at) => `--test-reporter${at % 2 === 0 ? '' : '-destination'}=${value}`);
  if (values.only !== undefined) args.push(`--test-name-pattern=${values.only}`);
  const child: ChildProcess = spawnBound(process.execPath, [...args, path], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (bytes: Buffer) => said.push(bytes));
  const timer = setTimeout(() => child.kill('SIGKILL'), fileLimitMs);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearTimeout(timer);
  process.stdout.write(Buffer.concat(said));
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
  const queue = files.entries();
  const worker = async (): Promise<void> => {
    for (const [index, file] of queue) outcomes.push(await runFile(file, join(dir, `${index}.tap`)));
  };
  await Promise.all(Array.from({ length: jobs }, worker));
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

/**
 * Fuzzes every parser: `npm run fuzz -- [--seconds N] [--executions N] [--target NAME]... [--jobs N]`. Targets in C++ run under libFuzzer (native.ts), those in
 * TypeScript in a process that is watched (script.ts). Inputs that reach something new grow in build/fuzz/NAME/corpus; what a
 * target found is in build/fuzz/NAME/found. Both begin with test/fuzz-corpus/NAME, which --merge brings up to date.
 */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { mergeKept } from './merge.js';
import { buildNative, findClang, forgotten, fuzzNative, nativeTargets, NotBuilt } from './native.js';
import { fuzzScript, type Bounds, type Outcome } from './script.js';
import { placesOf } from './target.js';
import { targets } from './targets.js';

const names = [...Object.keys(nativeTargets), ...Object.keys(targets)];
const usage = `usage: npm run fuzz -- [--seconds N] [--executions N] [--target NAME]... [--seed N] [--merge]
  --seconds N    for each target (default 30; with --executions, until it has them)
  --executions N ends a target when it has had so many
  --target NAME  of ${names.join(', ')} (default: all)
  --seed N       from which inputs are made (default: a new one)
  --jobs N       targets at a time (default: as many as there are processors)
  --merge        instead: keeps in test/fuzz-corpus as few inputs as reach all that was reached`;

interface Plan extends Bounds {
  readonly chosen: readonly string[];
  readonly jobs: number;
  readonly merge: boolean;
}

function fail(text: string, status: number): never {
  process.stderr.write(`fuzz: ${text}\n`);
  process.exit(status);
}

function wholeNumber(option: string, text: string, most: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= most) return value;
  return fail(`${option} is a whole number from 1 to ${most}, not '${text}'\n${usage}`, 2);
}

function parsed(args: string[]): ReturnType<typeof parse> {
  try {
    return parse(args);
  } catch (thrown) {
    return fail(`${(thrown as Error).message}\n${usage}`, 2);
  }
}

const parse = (args: string[]) =>
  parseArgs({
    args,
    options: {
      seconds: { type: 'string' },
      executions: { type: 'string' },
      target: { type: 'string', multiple: true, default: [] as string[] },
      seed: { type: 'string', default: String((Date.now() % 1e9) + 1) },
      jobs: { type: 'string', default: String(availableParallelism()) },
      merge: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  }).values;

function planOf(args: string[]): Plan {
  const { seconds, executions, target, seed, jobs, merge, help } = parsed(args);
  if (help) {
    process.stdout.write(`${usage}\n`);
    process.exit(0);
  }
  const unknown = target.find((name) => !names.includes(name));
  if (unknown !== undefined) fail(`no target '${unknown}'\n${usage}`, 2);
  return {
    seconds:
      seconds === undefined && executions !== undefined
        ? Infinity
        : wholeNumber('--seconds', seconds ?? '30', 1_000_000),
    executions: executions === undefined ? Infinity : wholeNumber('--executions', executions, 1e9),
    seed: wholeNumber('--seed', seed, 1e9),
    jobs: wholeNumber('--jobs', jobs, 1024),
    chosen: target.length > 0 ? target : names,
    merge,
  };
}

/** Null where only targets in TypeScript were chosen. */
function clangFor(chosen: readonly string[]): string | null {
  const [missing] = forgotten();
  if (missing !== undefined) fail(`${missing} is in no target`, 1);
  if (!chosen.some((name) => name in nativeTargets)) return null;
  return (
    findClang() ??
    fail(
      'needs clang with libFuzzer. On Debian or Ubuntu: sudo apt-get install -y clang-14 libclang-rt-14-dev',
      5,
    )
  );
}

function corpusSize(name: string): number {
  const { kept, grown } = placesOf(name);
  const files = [kept, grown].flatMap((dir) => {
    try {
      return readdirSync(dir);
    } catch {
      return [];
    }
  });
  return new Set(files.map((file) => file.slice(0, 16))).size;
}

function tell(name: string, { executions, seconds, found }: Outcome): void {
  const rate = Math.round(executions / seconds);
  const what = found === null ? 'nothing found' : `FOUND something, kept in ${found}`;
  process.stdout.write(
    `fuzz: ${name.padEnd(15)} ${executions} executions in ${seconds.toFixed(1)} s, ${rate}/s, corpus ${corpusSize(name)}, ${what}\n`,
  );
}

async function mergeAll(clang: string | null, chosen: readonly string[]): Promise<void> {
  for (const name of chosen) {
    const { files, bytes } = await mergeKept(name, clang);
    process.stdout.write(`fuzz: ${name.padEnd(15)} keeps ${files} inputs of ${bytes} bytes\n`);
  }
}

const limitOf = ({ seconds, executions }: Bounds): string =>
  [
    ...(Number.isFinite(seconds) ? [`${seconds} s`] : []),
    ...(Number.isFinite(executions) ? [`${executions} executions`] : []),
  ].join(' or ');

async function main({ chosen, jobs, merge, ...bounds }: Plan): Promise<void> {
  const clang = clangFor(chosen);
  if (merge) return mergeAll(clang, chosen);
  process.stdout.write(
    `fuzz: ${chosen.length} targets, ${limitOf(bounds)} each, ${jobs} at a time, seed ${bounds.seed}\n`,
  );
  const runs = chosen.map((name) => {
    const native = nativeTargets[name];
    const program = native && clang !== null ? buildNative(clang, name, native) : null;
    return async (): Promise<void> => {
      const outcome =
        native && program !== null
          ? await fuzzNative(program, name, native, bounds)
          : await fuzzScript(name, bounds);
      tell(name, outcome);
      if (outcome.found !== null) process.exitCode = 1;
    };
  });
  const worker = async (): Promise<void> => {
    for (let next = runs.shift(); next; next = runs.shift()) await next();
  };
  await Promise.all(Array.from({ length: jobs }, worker));
}

try {
  await main(planOf(process.argv.slice(2)));
} catch (thrown) {
  if (!(thrown instanceof NotBuilt)) throw thrown;
  fail(thrown.message, 1);
}

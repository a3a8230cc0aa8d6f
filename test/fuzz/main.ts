/**
 * Fuzzes the parsers in TypeScript: main.js --seconds N [--runs N] [--seed N] [--target NAME]. An input that is answered by
 * anything but a value or an error of its target's list, or only after seconds, is kept in fuzz-out/; it then belongs into
 * test/fuzz-corpus/NAME, which `npm test` replays.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../src/addon.js';
import { DormouseError } from '../../src/errors.js';
import { inputOf } from './mutate.js';
import { type Target, targets } from './targets.js';

const slowestMs = 5000;

/** Null, or what was wrong with how the target took the input. */
export async function judge(target: Target, input: Buffer): Promise<string | null> {
  const startedMs = performance.now();
  let wrong: string | null = null;
  try {
    await target.run(input);
  } catch (thrown) {
    if (!(thrown instanceof DormouseError && target.codes.includes(thrown.code)))
      wrong = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  }
  const tookMs = performance.now() - startedMs;
  return wrong ?? (tookMs > slowestMs ? `took ${Math.round(tookMs)} ms` : null);
}

/** Kept inputs of a target. */
export function keptInputs(name: string): Buffer[] {
  const dir = join(packageRoot, 'test/fuzz-corpus', name);
  return existsSync(dir)
    ? readdirSync(dir)
        .sort()
        .map((file) => readFileSync(join(dir, file)))
    : [];
}

function keep(name: string, input: Buffer): string {
  const dir = join(packageRoot, 'fuzz-out');
  mkdirSync(dir, { recursive: true });
  const path = join(dir, `${name}-${createHash('sha256').update(input).digest('hex').slice(0, 12)}`);
  writeFileSync(path, input);
  return path;
}

interface Plan {
  readonly seconds: number;
  readonly runs: number;
  readonly seed: number;
}

async function fuzz(name: string, target: Target, { seconds, runs, seed }: Plan): Promise<boolean> {
  const corpus = [...(await target.seeds()), ...keptInputs(name)];
  const startedMs = performance.now();
  let done = 0;
  for (; done < runs; done++) {
    if (done % 64 === 0 && performance.now() - startedMs > 1000 * seconds) break;
    const input = inputOf(corpus, seed, done);
    const wrong = await judge(target, input);
    if (wrong === null) continue;
    process.stdout.write(
      `fuzz: ${name} FAILED, seed ${seed}, input ${done}, kept as ${keep(name, input)}\n${wrong}\n`,
    );
    return false;
  }
  const tookS = (performance.now() - startedMs) / 1000;
  const rssMib = Math.round(process.memoryUsage().rss / 2 ** 20);
  process.stdout.write(
    `fuzz: ${name} found nothing: ${done} inputs in ${tookS.toFixed(1)} s, seed ${seed}, ${rssMib} MiB resident\n`,
  );
  return true;
}

async function main(): Promise<void> {
  const number = { type: 'string' } as const;
  const { values } = parseArgs({ options: { seconds: number, runs: number, seed: number, target: number } });
  const plan: Plan = {
    seconds: Number(values.seconds ?? 30),
    runs: Number(values.runs ?? Infinity),
    seed: Number(values.seed ?? Date.now() % 1e9),
  };
  for (const [name, target] of Object.entries(targets))
    if (values.target === undefined || values.target === name)
      if (!(await fuzz(name, target, plan))) process.exitCode = 1;
}

if (process.argv[1]?.endsWith('fuzz/main.js') === true) await main();

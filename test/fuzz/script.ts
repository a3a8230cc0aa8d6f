/** Runs a target in TypeScript in a process of its own and watches it from outside, as a parser that hangs cannot. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { watchedHead, type ChildResult } from './child.js';
import { placesOf } from './target.js';

/** Longest one input may take, and most memory that may be resident meanwhile. */
export const slowestMs = 5000;
export const mostResidentMib = 1024;
/** Until the first input: making what the corpus begins with. */
const startMs = 60_000;
const pollMs = 250;

/** When a target ends, whichever comes first (one of them may be Infinity), and where its inputs begin. */
export interface Bounds {
  readonly seconds: number;
  readonly executions: number;
  readonly seed: number;
}

export interface Outcome {
  readonly executions: number;
  readonly seconds: number;
  /** Null, or what was found; its input is kept. */
  readonly found: string | null;
}

const child = fileURLToPath(new URL('child.js', import.meta.url));

function residentMib(pid: number): number {
  try {
    return (Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096) / 2 ** 20;
  } catch {
    return 0;
  }
}

/** The input that is being tried, and how many were before. */
function watchedInput(path: string): { count: number; input: Buffer } {
  const bytes = readFileSync(path);
  if (bytes.length < watchedHead) return { count: 0, input: Buffer.alloc(0) };
  const [count, size] = [0, 8].map((at) => Number(bytes.readBigUInt64LE(at))) as [number, number];
  return { count, input: bytes.subarray(watchedHead, watchedHead + size) };
}

/** Why it had to be killed, or null if it came to its end. */
async function watch(running: ChildProcess, watched: string): Promise<string | null> {
  // Looks, not time: this process may be stopped too.
  let [count, looks] = [0, 0];
  const end = once(running, 'close').then(() => true);
  for (;;) {
    if (await Promise.race([end, sleep(pollMs, false)])) return null;
    const now = watchedInput(watched).count;
    looks = now === count ? looks + 1 : 0;
    count = now;
    const mib = residentMib(running.pid ?? 0);
    const late = looks * pollMs > (count === 0 ? startMs : slowestMs);
    if (!late && mib < mostResidentMib) continue;
    running.kill('SIGKILL');
    await end;
    return late ? `an input took more than ${slowestMs} ms` : `it took ${Math.round(mib)} MiB of memory`;
  }
}

function keep(name: string, input: Buffer): string {
  const { found } = placesOf(name);
  mkdirSync(found, { recursive: true });
  const path = join(found, createHash('sha256').update(input).digest('hex').slice(0, 16));
  writeFileSync(path, input);
  return path;
}

/** The last whole line, if it is a result. */
function resultIn(output: string): ChildResult | null {
  const line = output.trimEnd().split('\n').at(-1) ?? '';
  return line.startsWith('{"executions"') ? (JSON.parse(line) as ChildResult) : null;
}

/** `program`: what is run and watched, by its tests. */
export async function fuzzScript(
  name: string,
  { seconds, executions, seed }: Bounds,
  program = child,
): Promise<Outcome> {
  const own = join(placesOf(name).grown, '..');
  mkdirSync(own, { recursive: true });
  const watched = join(own, 'watched');
  writeFileSync(watched, '');
  const args = [
    '--max-old-space-size=512',
    program,
    name,
    String(seconds),
    String(executions),
    String(seed),
    watched,
  ];
  const startedMs = performance.now();
  const running = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let [output, said] = ['', ''];
  running.stdout.on('data', (bytes: Buffer) => (output += bytes.toString()));
  running.stderr.on('data', (bytes: Buffer) => (said = (said + bytes.toString()).slice(-4096)));
  const killed = await watch(running, watched);
  const result = killed === null ? resultIn(output) : null;
  const { count, input } = watchedInput(watched);
  const died = `it ended by ${running.signalCode ?? `exit code ${running.exitCode ?? '?'}`}\n${said}`;
  const wrong = killed ?? (result ? result.wrong : died);
  return {
    executions: result?.executions ?? count,
    seconds: result?.seconds ?? (performance.now() - startedMs) / 1000,
    found: wrong === null ? null : `${keep(name, input)}\n${wrong}`,
  };
}

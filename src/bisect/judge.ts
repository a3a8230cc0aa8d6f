/** Runs the COMMAND that tells a good point from a bad one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DormouseError } from '../errors.js';
import type { Verdict } from './search.js';

export interface Judgement {
  readonly verdict: Verdict;
  /** Null if it had to be ended. */
  readonly exitCode: number | null;
}

export interface JudgeOptions {
  /** Beside those of this process. */
  readonly env: Readonly<Record<string, string>>;
  /** What takes longer is bad. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** By the exit codes of `git bisect run`. */
const skipCode = 125;
const leastAborting = 128;
/** What a COMMAND that is told to end has to do so. */
const graceMs = 5000;

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/** USAGE for a program that cannot be started: by its path, or looked for in PATH. */
export async function requireProgram(program: string): Promise<void> {
  const folders = program.includes('/') ? [''] : (process.env.PATH ?? '').split(':');
  for (const folder of folders) if (await isProgram(join(folder, program))) return;
  throw new DormouseError('USAGE', `COMMAND cannot be started: there is no program '${program}'`);
}

/** With all that it started and that is still in its process group. */
async function end({ pid }: ChildProcess, exited: Promise<unknown>): Promise<void> {
  const send = (signal: 'SIGTERM' | 'SIGKILL'): void => {
    try {
      if (pid !== undefined) process.kill(-pid, signal);
    } catch {
      // All of it has ended, or is another user's, as under sudo: then it is waited for.
    }
  };
  send('SIGTERM');
  await Promise.race([exited, sleep(graceMs, undefined, { ref: false })]);
  send('SIGKILL');
  await exited;
}

function judgementOf(exitCode: number | null, killedBy: NodeJS.Signals | null): Judgement {
  if (exitCode === null || exitCode >= leastAborting)
    throw new DormouseError(
      'COMMAND_FAILED',
      `COMMAND ${exitCode === null ? `was killed by ${String(killedBy)}` : `ended with ${exitCode}`}`,
    );
  const verdict = exitCode === 0 ? 'good' : exitCode === skipCode ? 'skip' : 'bad';
  return { verdict, exitCode };
}

type Exit = [exitCode: number | null, killedBy: NodeJS.Signals | null];

async function exitOf(child: ChildProcess): Promise<Exit> {
  try {
    return (await once(child, 'exit')) as Exit;
  } catch (cause) {
    throw new DormouseError('USAGE', `COMMAND cannot be started: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Runs it with no input and with its output on stderr, in a process group of its own: whatever it started ends with it when it takes too
 * long or is cancelled. COMMAND_FAILED if it was killed or ended with 128 or more, CANCELLED, USAGE if it cannot be started.
 */
export async function judge(command: readonly string[], options: JudgeOptions): Promise<Judgement> {
  const { env, timeoutMs, signal } = options;
  const cancelled = (): DormouseError => new DormouseError('CANCELLED', 'cancelled while COMMAND ran');
  if (signal?.aborted) throw cancelled();
  const [program = '', ...rest] = command;
  const own = { detached: true, env: { ...process.env, ...env } };
  const child = spawn(program, rest, { ...own, stdio: ['ignore', 2, 2] });
  const exited = exitOf(child);
  const late = timeoutMs === undefined ? [] : [AbortSignal.timeout(Math.ceil(timeoutMs))];
  const stop = AbortSignal.any([...(signal ? [signal] : []), ...late]);
  const exit = await Promise.race([exited, once(stop, 'abort').then(() => null)]);
  if (exit) return judgementOf(...exit);
  await end(child, exited);
  if (signal?.aborted) throw cancelled();
  return { verdict: 'bad', exitCode: null };
}

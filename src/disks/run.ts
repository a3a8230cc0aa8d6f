/** Runs programs that keep disks: bounded in time, and without this process doing anything else meanwhile, for a guest may stand. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DormouseError } from '../errors.js';

export interface RunOptions {
  readonly timeoutMs: number;
  /** It is asked to end then, and waited for until it has; else it is killed with all that it started. */
  readonly waits?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** What it wrote to stdout. COMMAND_FAILED with what it said. */
export type Run = (program: string, args: readonly string[], options: RunOptions) => string;

const mostShown = 20;

/** Of what it wrote, the last of it. */
const mostBytes = 1 << 20;

const linesOf = (text: string): string[] => text.split('\n').filter((line) => line.trim() !== '');

/** What a program has started is of its group, for it leads one. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // They have ended.
  }
}

/** Two files that nobody else knows of, and what is in them then. */
function withOutputs<T>(use: (out: number, err: number, written: () => [string, string]) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'dormouse-'));
  const fds: number[] = [];
  try {
    for (const name of ['out', 'err']) fds.push(openSync(join(folder, name), 'wx', 0o600));
    const textOf = (name: string): string => readFileSync(join(folder, name), 'utf8').slice(-mostBytes);
    return use(fds[0] ?? -1, fds[1] ?? -1, () => [textOf('out'), textOf('err')]);
  } finally {
    for (const fd of fds) closeSync(fd);
    rmSync(folder, { recursive: true, force: true });
  }
}

export const run: Run = (program, args, { timeoutMs, waits = false, env }) =>
  // Pipes are closed when its time is over: who has yet to end and says so would die of it.
  withOutputs((out, err, written) => {
    const { pid, status, signal, error } = spawnSync(program, [...args], {
      ...{ timeout: timeoutMs, killSignal: waits ? 'SIGTERM' : 'SIGKILL' },
      // In a group of its own it does not hear Ctrl-C, which ends this process in order.
      ...{ detached: true },
      ...{ stdio: ['ignore', out, err], env: { ...process.env, ...env } },
    });
    const [stdout, stderr] = written();
    if (status === 0 && error === undefined) return stdout;
    if (error !== undefined && pid > 0 && !waits) endGroup(pid);
    throw failureOf([program, ...args], { status, signal, error, stderr, timeoutMs, waits });
  });

interface Outcome {
  readonly status: number | null;
  readonly signal: string | null;
  readonly error?: Error | undefined;
  readonly stderr: string;
  readonly timeoutMs: number;
  readonly waits: boolean;
}

function failureOf(
  command: readonly string[],
  { status, signal, error, stderr, timeoutMs, waits }: Outcome,
): DormouseError {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  const how =
    code === 'ETIMEDOUT'
      ? `did not end within ${timeoutMs / 1000} s and was ${waits ? 'ended' : 'killed'}`
      : error
        ? `cannot be run: ${error.message}`
        : status === null
          ? `was killed by ${String(signal)}`
          : `ended with ${status}`;
  const said = linesOf(stderr).slice(-mostShown);
  // LVM ends with where its help is.
  const last = said.findLast((line) => !/^\s*Run `/u.test(line))?.trim();
  return new DormouseError(
    'COMMAND_FAILED',
    `\`${command.join(' ')}\` ${how}${last === undefined ? '' : `: ${last}`}`,
    { cause: error, details: said, advice: 'See what it said; run it by hand with the same arguments.' },
  );
}

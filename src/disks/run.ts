/** Runs programs that keep disks: bounded in time, and without this process doing anything else meanwhile, for a guest may stand. */
import { spawnSync } from 'node:child_process';
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

/** Null of one that did not start, of which Node's types know nothing. */
const linesOf = (text: string | null): string[] =>
  (text ?? '').split('\n').filter((line) => line.trim() !== '');

/** What a program has started is of its group, for it leads one. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // They have ended.
  }
}

export const run: Run = (program, args, { timeoutMs, waits = false, env }) => {
  const { pid, status, signal, error, stdout, stderr } = spawnSync(program, [...args], {
    ...{ encoding: 'utf8', timeout: timeoutMs, maxBuffer: 1 << 20 },
    killSignal: waits ? 'SIGTERM' : 'SIGKILL',
    // In a group of its own it does not hear Ctrl-C, which ends this process in order.
    ...{ detached: true },
    ...{ stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } },
  });
  if (status === 0 && error === undefined) return stdout;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code === 'ETIMEDOUT' && !waits) endGroup(pid);
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
  throw new DormouseError(
    'COMMAND_FAILED',
    `\`${[program, ...args].join(' ')}\` ${how}${last === undefined ? '' : `: ${last}`}`,
    { cause: error, details: said, advice: 'See what it said; run it by hand with the same arguments.' },
  );
};

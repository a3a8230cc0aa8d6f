/**
 * The xl process that watches a domain and acts on its end as the configuration says (on_poweroff, on_reboot, on_crash).
 * One of Xen 4.17 takes any shutdown with the reason "suspend" for the domain's end here, and exits. So it is stopped while
 * a domain that is to go on stands suspended: when it looks again it finds the domain running.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DormouseError } from '../../errors.js';

export interface Monitor {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid it names a process for good. */
  readonly startTime: string;
}

const tailBytes = 65_536;
const stopMs = 1000;
const pollMs = 2;
const lockPollMs = 20;

/** State letter and start time of a process; null where there is none. */
function processStat(pid: number): { readonly state: string; readonly startTime: string } | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, startTime] = [fields[0], fields[19]];
    return state === undefined || startTime === undefined ? null : { state, startTime };
  } catch {
    return null;
  }
}

/** The end of the file that is a process's standard output; empty for a terminal or pipe, which reading would disturb. */
function outputTail(pid: number): string {
  const path = `/proc/${pid}/fd/1`;
  const stat = statSync(path);
  if (!stat.isFile()) return '';
  const fd = openSync(path, 'r');
  try {
    const tail = Buffer.alloc(Math.min(tailBytes, stat.size));
    return tail.toString('utf8', 0, readSync(fd, tail, 0, tail.length, stat.size - tail.length));
  } finally {
    closeSync(fd);
  }
}

/** The domain that an xl process said last, in its log, that it waits for; null for any other process. */
export function watchedDomain(pid: number, log: string): number | null {
  const said = [...log.matchAll(/^Waiting for domain .* \(domid (\d+)\) to die \[pid (\d+)\]$/gm)];
  const [, domid, by] = said.at(-1) ?? [];
  return domid === undefined || Number(by) !== pid ? null : Number(domid);
}

function watches(pid: number, domid: number): boolean {
  try {
    if (statSync(`/proc/${pid}`).uid !== process.geteuid?.()) return false;
    if (!/\/xl( \(deleted\))?$/.test(readlinkSync(`/proc/${pid}/exe`))) return false;
    return watchedDomain(pid, outputTail(pid)) === domid;
  } catch {
    return false; // a kernel thread, or one that has just ended
  }
}

/** Null where no xl process watches it: one that runs in the foreground, or another toolstack, is not found either. */
export function findMonitor(domid: number): Monitor | null {
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || !watches(pid, domid)) continue;
    const stat = processStat(pid);
    // One that somebody else stopped is not ours to continue.
    if (stat !== null && stat.state !== 'T') return { pid, startTime: stat.startTime };
  }
  return null;
}

const isThere = ({ pid, startTime }: Monitor): boolean => processStat(pid)?.startTime === startTime;

/** Whether it holds a file lock, as libxl does while it changes a domain's configuration: others would wait for it. */
function holdsLock(pid: number): boolean {
  const lines = readFileSync('/proc/locks', 'utf8').split('\n');
  return lines.some((line) => /^\d+: (?!->)\S+ +\S+ +\S+ +(\d+) /.exec(line)?.[1] === String(pid));
}

async function standsStill(monitor: Monitor, untilMs: number): Promise<void> {
  while (isThere(monitor) && processStat(monitor.pid)?.state !== 'T' && performance.now() < untilMs)
    await sleep(pollMs);
}

/**
 * Returns once it stands and holds no lock, or is gone. What happens to its domain meanwhile it finds when it goes on. LOCKED,
 * and it runs on, if it keeps a lock for a second: it is at work on a domain.
 */
export async function stopMonitor(monitor: Monitor): Promise<void> {
  const end = performance.now() + stopMs;
  while (isThere(monitor)) {
    process.kill(monitor.pid, 'SIGSTOP');
    await standsStill(monitor, end);
    if (!holdsLock(monitor.pid)) return;
    process.kill(monitor.pid, 'SIGCONT');
    if (performance.now() >= end)
      throw new DormouseError(
        'LOCKED',
        `the xl process ${monitor.pid} that watches the domain is at work on it`,
      );
    await sleep(lockPollMs);
  }
}

export function continueMonitor(monitor: Monitor): void {
  if (isThere(monitor)) process.kill(monitor.pid, 'SIGCONT');
}

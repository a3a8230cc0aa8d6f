/** Starting, finding and stopping the process that is an embedded host. */
import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DormouseError } from '../../errors.js';
import { HostConnection } from './connection.js';
import type { HostReport } from './ops.js';
import {
  type HostPaths,
  hostPaths,
  logTail,
  openLog,
  readHostState,
  removeHostFiles,
  tryHostLock,
} from './run_dir.js';

const gib = 1024 ** 3;
const startTimeoutMs = 15_000;
const stopTimeoutMs = 15_000;
const pollMs = 10;
/** Exit code of a host process that found another one there. */
export const exitAlreadyRunning = 75;

const serverMain = join(dirname(fileURLToPath(import.meta.url)), 'server_main.js');

export type HostStatus =
  | { readonly state: 'running'; readonly report: HostReport }
  | { readonly state: 'stopped' }
  | { readonly state: 'died'; readonly lostGuests: readonly string[] };

/** Half of the memory that is free now, in whole GiB and at least one. It is taken only as guests touch it. */
export function defaultMemoryBytes(): number {
  const available = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  const bytes = available ? Number(available[1]) * 1024 : 0;
  return Math.max(1, Math.floor(bytes / 2 / gib)) * gib;
}

/**
 * Starts a host. Returns false if it was running already (whatever its size). HOST_DIED, once, if the last one of that
 * name died with guests; HOST_UNAVAILABLE with the end of its log if it does not come up.
 */
export async function startHost(options: { name: string; memoryBytes?: number }): Promise<boolean> {
  const { connection, started } = await connectOrStart(hostPaths(options.name), options.memoryBytes);
  await connection.close();
  return started;
}

/** A connection to the host of that name, started first where none runs. Errors as startHost. */
export async function connectHost(name: string): Promise<HostConnection> {
  return (await connectOrStart(hostPaths(name))).connection;
}

/**
 * Ends a host and waits until it has. Returns false if none ran. DOMAIN_WRONG_STATE if it has guests and `force` is
 * not set; HOST_DIED, once, if it had died with guests.
 */
export async function stopHost(name: string, options: { force?: boolean } = {}): Promise<boolean> {
  const paths = hostPaths(name);
  const connection = await HostConnection.open(paths.socket, name);
  if (!connection) {
    clearDeadHost(paths);
    return false;
  }
  try {
    await connection.call('stop', { force: options.force ?? false });
  } finally {
    await connection.close();
  }
  await waitUntilGone(paths);
  return true;
}

/** What runs under that name. Starts nothing and clears nothing. */
export async function hostStatus(name: string): Promise<HostStatus> {
  const paths = hostPaths(name);
  const connection = await HostConnection.open(paths.socket, name);
  if (connection) {
    const report = await connection.call('status', {});
    await connection.close();
    return { state: 'running', report };
  }
  const state = readHostState(paths);
  return state && state.guests.length > 0
    ? { state: 'died', lostGuests: state.guests }
    : { state: 'stopped' };
}

/** Removes what a dead host left. HOST_DIED with the names of the guests it had, if any. */
function clearDeadHost(paths: HostPaths): void {
  const release = tryHostLock(paths);
  if (!release) return;
  try {
    const state = readHostState(paths);
    if (!state) return;
    removeHostFiles(paths);
    if (state.guests.length === 0) return;
    const names = state.guests.join(', ');
    throw new DormouseError(
      'HOST_DIED',
      `the embedded host '${paths.name}' (process ${state.pid}) died; with it went ${names}`,
    );
  } finally {
    release();
  }
}

async function connectOrStart(
  paths: HostPaths,
  memoryBytes = defaultMemoryBytes(),
): Promise<{ connection: HostConnection; started: boolean }> {
  const deadline = performance.now() + startTimeoutMs;
  do {
    const running = await HostConnection.open(paths.socket, paths.name);
    if (running) return { connection: running, started: false };
    clearDeadHost(paths);
    const { fd, from } = openLog(paths);
    const args = [serverMain, paths.name, String(memoryBytes)];
    const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', fd, fd], cwd: '/' });
    closeSync(fd);
    child.unref();
    const connection = await awaitHost(paths, child, from, deadline);
    if (connection) return { connection, started: connection.hostPid === child.pid };
  } while (performance.now() < deadline);
  throw new DormouseError('HOST_UNAVAILABLE', `the embedded host '${paths.name}' neither ends nor answers`);
}

/**
 * Connects to the host that `child` becomes, or to the one that was faster. Null if it gave way to one that has not
 * answered either, as when that was just ending.
 */
async function awaitHost(
  paths: HostPaths,
  child: ChildProcess,
  logFrom: number,
  deadline: number,
): Promise<HostConnection | null> {
  let failure: Error | undefined;
  child.once('error', (error) => (failure = error));
  const fail = (why: string) => {
    const tail = logTail(paths, logFrom);
    const text = `the embedded host '${paths.name}' ${why}`;
    return new DormouseError('HOST_UNAVAILABLE', tail === '' ? text : `${text}; its log ends:\n${tail}`, {
      cause: failure,
      place: { path: paths.log },
    });
  };
  while (performance.now() < deadline) {
    const ended = child.exitCode ?? child.signalCode;
    const connection = await HostConnection.open(paths.socket, paths.name);
    if (connection) return connection;
    if (failure) throw fail(`cannot be started (${failure.message})`);
    if (ended === exitAlreadyRunning) return null;
    if (ended !== null) throw fail(`ended at once (${ended})`);
    await sleep(pollMs);
  }
  child.kill('SIGTERM');
  throw fail(`was not ready within ${startTimeoutMs / 1000} s`);
}

async function waitUntilGone(paths: HostPaths): Promise<void> {
  const deadline = performance.now() + stopTimeoutMs;
  while (performance.now() < deadline) {
    const release = tryHostLock(paths);
    release?.();
    if (release) return;
    await sleep(pollMs);
  }
  throw new DormouseError('HOST_UNAVAILABLE', `the embedded host '${paths.name}' does not end`);
}

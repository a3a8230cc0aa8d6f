/**
 * Where an embedded host keeps its socket, state, log and lock, and what it leaves there. The state file names the
 * guests of the moment; if it is there and nobody holds the lock, the host died and those guests went with it.
 */
import {
  chmodSync,
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { addon, native } from '../../addon.js';
import { DormouseError } from '../../errors.js';

/** Longest path a Unix socket can have on Linux. */
const maxSocketPathBytes = 107;
const maxLogBytes = 1024 * 1024;
const logTailBytes = 2000;

export interface HostPaths {
  readonly name: string;
  readonly dir: string;
  readonly socket: string;
  readonly state: string;
  readonly log: string;
  readonly lock: string;
}

const stateSchema = z.object({
  pid: z.number().int().positive(),
  startedAt: z.string(),
  memoryBytes: z.number(),
  version: z.string(),
  guests: z.array(z.string()),
});
/** What the state file says of the host process, and its guests' names. */
export type HostState = z.infer<typeof stateSchema>;

function ownUid(): number {
  return process.geteuid?.() ?? 0;
}

function runDirPath(): string {
  const { DORMOUSE_RUN_DIR: own, XDG_RUNTIME_DIR: session } = process.env;
  if (own !== undefined && own !== '') return own;
  if (session !== undefined && session !== '') return join(session, 'dormouse');
  return ownUid() === 0 ? '/run/dormouse' : `/tmp/dormouse-${ownUid()}`;
}

const runDirAdvice =
  'Set DORMOUSE_RUN_DIR to a folder of your own, with a short path, or to one that can be made.';

/** Makes the directory if it is missing. HOST_UNAVAILABLE if it is not a directory of this user alone. */
export function secureRunDir(): string {
  const dir = runDirPath();
  const refuse = (why: string, cause?: unknown) =>
    new DormouseError('HOST_UNAVAILABLE', `the run directory ${dir} ${why}`, {
      ...{ cause, place: { path: dir }, advice: runDirAdvice },
    });
  try {
    mkdirSync(dir, { mode: 0o700 });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST')
      throw refuse(`cannot be made: ${(thrown as Error).message}`, thrown);
  }
  const found = lstatSync(dir);
  if (found.isSymbolicLink()) throw refuse('is a symbolic link');
  if (!found.isDirectory()) throw refuse('is not a directory');
  if (found.uid !== ownUid()) throw refuse(`belongs to user ${found.uid}`);
  if ((found.mode & 0o077) !== 0) chmodSync(dir, 0o700);
  return dir;
}

/** The files of one host. USAGE for a name that cannot be one; HOST_UNAVAILABLE as secureRunDir. */
export function hostPaths(name: string): HostPaths {
  if (!/^[A-Za-z0-9][-A-Za-z0-9._]{0,31}$/.test(name))
    throw new DormouseError('USAGE', `not a name for a host: ${JSON.stringify(name.slice(0, 80))}`);
  const dir = secureRunDir();
  const at = (extension: string) => join(dir, `${name}.${extension}`);
  const paths = { name, dir, socket: at('sock'), state: at('json'), log: at('log'), lock: at('lock') };
  if (Buffer.byteLength(paths.socket) > maxSocketPathBytes)
    throw new DormouseError('HOST_UNAVAILABLE', `the path ${paths.socket} is too long for a socket`, {
      place: { path: paths.socket },
      advice: runDirAdvice,
    });
  return paths;
}

/**
 * Takes the host's lock: held by its process for as long as it lives, and for a moment by whoever cleans up after one.
 * Null where it is held. Returns what gives it back.
 */
export function tryHostLock(paths: HostPaths): (() => void) | null {
  const lock = addon('fileLock') as { tryLock(fd: number): boolean };
  const fd = openSync(paths.lock, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  const release = () => {
    closeSync(fd);
  };
  try {
    if (native(() => lock.tryLock(fd))) return release;
  } catch (thrown) {
    release();
    throw thrown;
  }
  release();
  return null;
}

/** Null where there is no state file; a damaged one counts as a host without known guests. */
export function readHostState(paths: HostPaths): HostState | null {
  try {
    const parsed = stateSchema.safeParse(JSON.parse(readFileSync(paths.state, 'utf8')));
    if (parsed.success) return parsed.data;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null;
  }
  return { pid: 1, startedAt: '', memoryBytes: 0, version: '', guests: [] };
}

export function writeHostState(paths: HostPaths, state: HostState): void {
  const temporary = `${paths.state}.new`;
  writeFileSync(temporary, `${JSON.stringify(state)}\n`, { mode: 0o600 });
  renameSync(temporary, paths.state);
}

export function removeHostFiles(paths: HostPaths): void {
  for (const path of [paths.socket, paths.state, `${paths.state}.new`]) rmSync(path, { force: true });
}

/** Opens the log for appending, emptied first when it has grown long. Returns the end of it as `from`. */
export function openLog(paths: HostPaths): { fd: number; from: number } {
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW;
  const fd = openSync(paths.log, flags, 0o600);
  if (statSync(paths.log).size > maxLogBytes) truncateSync(paths.log);
  return { fd, from: statSync(paths.log).size };
}

/** What was logged since `from`, at most the last 2000 bytes. */
export function logTail(paths: HostPaths, from: number): string {
  try {
    return readFileSync(paths.log).subarray(from).subarray(-logTailBytes).toString('utf8').trim();
  } catch {
    return '';
  }
}

/** One line of the host's own log, which is its standard error. */
export function logLine(text: string): void {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`);
}

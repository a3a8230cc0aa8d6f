/**
 * The process of an embedded host: `server_main.js NAME MEMORY_BYTES`. It outlives the terminal it was started from and
 * ends on SIGTERM or when it is told to. Exits 75 if a host of that name is there already.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { asDormouseError } from '../../errors.js';
import { exitAlreadyRunning } from './lifecycle.js';
import { hostPaths, readHostState, removeHostFiles, tryHostLock, type HostPaths } from './run_dir.js';
import { HostServer } from './server.js';

const lockTries = 20;
const lockPauseMs = 10;

function log(text: string): void {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`);
}

/** Held until the process ends. Tools take the lock too, but only for a moment. */
async function lockHost(paths: HostPaths): Promise<boolean> {
  for (let tries = 0; tries < lockTries; tries++) {
    if (tryHostLock(paths)) return true;
    await sleep(lockPauseMs);
  }
  return false;
}

async function main(): Promise<number> {
  process.umask(0o077);
  for (const ignored of ['SIGHUP', 'SIGINT'] as const) process.on(ignored, () => undefined);
  const paths = hostPaths(process.argv[2] ?? '');
  const memoryBytes = z.coerce.number().int().positive().parse(process.argv[3]);
  // A state file tells of guests that a tool has not been told about yet: it is not this process's to remove.
  if (!(await lockHost(paths)) || readHostState(paths)) return exitAlreadyRunning;
  removeHostFiles(paths);
  const server = new HostServer(paths, memoryBytes);
  process.on('SIGTERM', () => void server.stop());
  await server.listen();
  log(`host '${paths.name}' is ready: process ${process.pid}, ${memoryBytes / 1024 ** 2} MiB`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (thrown) {
  const { code, message } = asDormouseError(thrown);
  log(`${code}: ${message}`);
  process.exit(1);
}

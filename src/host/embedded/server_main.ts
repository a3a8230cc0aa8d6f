/**
 * The process of an embedded host: `server_main.js NAME MEMORY_BYTES`. It outlives the terminal it was started from and
 * ends on SIGTERM or when it is told to. Exits 75 if a host of that name is there already.
 */
import * as z from 'zod';
import { asDormouseError } from '../../errors.js';
import { exitAlreadyRunning } from './lifecycle.js';
import { hostPaths, logLine, readHostState, removeHostFiles, tryHostLock } from './run_dir.js';
import { HostServer } from './server.js';

async function main(): Promise<number> {
  process.umask(0o077);
  process.stderr.on('error', () => undefined);
  for (const ignored of ['SIGHUP', 'SIGINT'] as const) process.on(ignored, () => undefined);
  const paths = hostPaths(process.argv[2] ?? '');
  const memoryBytes = z.coerce.number().int().positive().parse(process.argv[3]);
  // The lock is held until the process ends. It is not waited for: whoever wants this host asks again. A state file
  // tells of guests that nobody has been told about yet, so it is not this process's to remove.
  if (!tryHostLock(paths) || readHostState(paths)) return exitAlreadyRunning;
  removeHostFiles(paths);
  const server = new HostServer(paths, memoryBytes);
  process.on('SIGTERM', () => server.stop());
  await server.listen();
  logLine(`host '${paths.name}' is ready: process ${process.pid}, ${memoryBytes / 1024 ** 2} MiB`);
  await server.stopped;
  logLine(`host '${paths.name}' has ended`);
  return 0;
}

main().then(
  (exitCode) => process.exit(exitCode),
  (thrown: unknown) => {
    const { code, message } = asDormouseError(thrown);
    logLine(`${code}: ${message}`);
    process.exit(1);
  },
);

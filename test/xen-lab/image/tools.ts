import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { LabError } from '../errors.js';
import { projectRoot } from '../paths.js';

/**
 * Sees to it that the tools the lab is built and run with are there (scripts/needs.mjs): one message names all that are not with
 * the exact apt-get line, or, as root where CI is set, they are installed. Throws LabError.
 */
export function needTools(): void {
  if (process.arch !== 'x64' || process.platform !== 'linux')
    throw new LabError('the Xen lab runs on Linux on x86-64 only');
  const script = join(projectRoot, 'scripts/needs.mjs');
  const done = spawnSync(process.execPath, [script, 'lab'], {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (done.status !== 0) throw new LabError(done.stderr.trim());
}

/** Runs a command to its end. Returns its standard output; throws LabError with its standard error. */
export function run(name: string, args: string[], options: { cwd?: string; input?: string } = {}): string {
  const done = spawnSync(name, args, { ...options, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (done.error) throw new LabError(`${name}: ${done.error.message}`);
  if (done.status !== 0)
    throw new LabError(`${name} ${args.join(' ')} ended with ${String(done.status)}: ${done.stderr.trim()}`);
  return done.stdout;
}

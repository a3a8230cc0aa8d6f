import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { LabError } from '../errors.js';

interface Tool {
  package: string;
  present: () => boolean;
}

function command(name: string): () => boolean {
  return () => spawnSync('sh', ['-c', `command -v ${name}`]).status === 0;
}

const tools: Tool[] = [
  { package: 'qemu-system-x86', present: command('qemu-system-x86_64') },
  { package: 'busybox-static', present: () => spawnSync('dpkg', ['-s', 'busybox-static']).status === 0 },
  { package: 'xz-utils', present: command('xz') },
  { package: 'cpio', present: command('cpio') },
  { package: 'e2fsprogs', present: () => existsSync('/sbin/mke2fs') },
  { package: 'gcc', present: command('gcc') },
  { package: 'libc6-dev', present: () => existsSync('/usr/lib/x86_64-linux-gnu/libpthread.a') },
  { package: 'util-linux', present: command('setpriv') },
];

const say = (text: string): void => {
  process.stderr.write(`lab: ${text}\n`);
};

/**
 * Sees to it that the tools the lab is built and run with are there: names the exact apt-get line, or, as root where CI is
 * set, runs it. Throws LabError.
 */
export function needTools(): void {
  if (process.arch !== 'x64' || process.platform !== 'linux')
    throw new LabError('the Xen lab runs on Linux on x86-64 only');
  const missing = tools.filter((tool) => !tool.present()).map((tool) => tool.package);
  if (missing.length === 0) return;
  const line = ['install', '-y', '--no-install-recommends', ...missing];
  const shown = `apt-get ${line.join(' ')}`;
  if (process.env.CI !== undefined && process.getuid?.() === 0) {
    say(`missing ${missing.join(', ')}; running ${shown}`);
    const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    spawnSync('apt-get', ['update', '-q'], { stdio: ['ignore', 2, 2] });
    spawnSync('apt-get', line, { stdio: ['ignore', 2, 2], env: environment });
    if (tools.every((tool) => tool.present())) return;
  }
  throw new LabError(
    `the Xen lab needs ${missing.join(', ')}. On Debian 12: sudo apt-get update && sudo ${shown}`,
  );
}

/** Runs a command to its end. Returns its standard output; throws LabError with its standard error. */
export function run(name: string, args: string[], options: { cwd?: string; input?: string } = {}): string {
  const done = spawnSync(name, args, { ...options, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (done.error) throw new LabError(`${name}: ${done.error.message}`);
  if (done.status !== 0)
    throw new LabError(`${name} ${args.join(' ')} ended with ${String(done.status)}: ${done.stderr.trim()}`);
  return done.stdout;
}

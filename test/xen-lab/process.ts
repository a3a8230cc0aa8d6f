import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';

/** Starts a program which the kernel kills as soon as this process has ended, in whatever way. Debian's util-linux has setpriv. */
export function spawnBound(program: string, args: string[], options: SpawnOptions): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], options);
}

/** Ends this process when the one that started it is gone, so that what is bound to this one ends too. */
export function endWithParent(): void {
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) process.exit(1);
  }, 500).unref();
}

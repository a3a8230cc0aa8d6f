/** A host whose guest has disks that are files of a file system which shares blocks; or of any, for a program that copies them. */
import { Buffer } from 'node:buffer';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { DomainDisk, Host } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { withCalls } from './with_calls.js';

const canMount = ((): string | false => {
  if (process.getuid?.() !== 0) return 'only root can mount a file system';
  if (!/\txfs\n/u.test(readFileSync('/proc/filesystems', 'utf8'))) return 'the kernel has no XFS';
  if (spawnSync('mkfs.xfs', ['-V']).status !== 0) return 'there is no mkfs.xfs (xfsprogs)';
  return spawnSync('losetup', ['-f']).status === 0 ? false : 'there are no loop devices';
})();

/** Why there is no such file system here. */
export const noXfs = canMount;

function did(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
  return stdout.trim();
}

export interface Xfs {
  readonly dir: string;
  /** A loop device that shows a file of it. */
  loopDevice(path: string): string;
}

/** A new one, for as long as the test takes. */
export function mountXfs(t: TestContext): Xfs {
  const root = mkdtempSync(join(tmpdir(), 'dormouse-xfs-'));
  const [image, dir] = [join(root, 'image'), join(root, 'xfs')];
  const devices: string[] = [];
  t.after(() => {
    for (const device of devices) did('losetup', '--detach', device);
    did('umount', dir);
    rmSync(root, { recursive: true, force: true });
  });
  mkdirSync(dir);
  writeFileSync(image, '');
  truncateSync(image, 512 << 20);
  did('mkfs.xfs', '-q', '-m', 'reflink=1', image);
  did('mount', '-o', 'loop', image, dir);
  const loopDevice = (path: string): string => {
    const device = did('losetup', '--find', '--show', path);
    devices.push(device);
    return device;
  };
  return { dir, loopDevice };
}

export const diskBytes = 3 << 20;
export const filledWith = (word: string): Buffer => Buffer.alloc(diskBytes, word.padEnd(16, '.'));

/** A disk of a guest. */
export function newDisk(dir: string, name: string): DomainDisk {
  const path = join(dir, `${name}.img`);
  writeFileSync(path, filledWith('at first'));
  return { name, path, kind: 'file', writable: true };
}

/** The host, whose guests all have these disks. */
export const withDisks = (host: EmbeddedHost, disks: () => readonly DomainDisk[]): Host =>
  withCalls(host, { disks: () => Promise.resolve(disks()) });

/** A program that keeps disks in `dir`, with a line of `log` for each call; where `dir/fails` is it fails. */
export function copyingProgram(dir: string): { program: string; log: string } {
  const [program, log] = [join(dir, 'keeper'), join(dir, 'log')];
  writeFileSync(log, '');
  writeFileSync(
    program,
    `#!/bin/sh
echo "$*" >>${log}
[ ! -e ${dir}/fails ] || { echo "out of tape" >&2; exit 3; }
case $1 in
take) cp "$4" "${dir}/$5" ;;
put-back) dd if="${dir}/$5" of="$4" conv=notrunc status=none ;;
forget) rm -f "${dir}/$5" ;;
check) [ -e "${dir}/$5" ] ;;
esac
`,
  );
  chmodSync(program, 0o755);
  return { program, log };
}

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDir } from '../paths.js';
import { LabError } from '../errors.js';
import { run } from './tools.js';

const xenPackages = [
  'xen-hypervisor-4.17-amd64',
  'xen-utils-4.17',
  'xen-utils-common',
  'xenstore-utils',
  'libxenmisc4.17',
  'libxencall1',
  'libxendevicemodel1',
  'libxenevtchn1',
  'libxenforeignmemory1',
  'libxengnttab1',
  'libxenhypfs1',
  'libxenstore4',
  'libxentoolcore1',
  'libxentoollog1',
  'libyajl2',
  'libnl-3-200',
  'libnl-route-3-200',
];

/** Where Debian's packages were unpacked to; nothing of them is installed on this machine. */
export interface Packages {
  kernelDir: string;
  xenDir: string;
  /** Changes when a package does. */
  key: string;
}

function kernelPackage(): string {
  const listed = /Depends: (linux-image-[0-9]\S*)/.exec(run('apt-cache', ['depends', 'linux-image-amd64']));
  if (listed?.[1] === undefined)
    throw new LabError('apt does not know linux-image-amd64: run `apt-get update` first');
  return listed[1];
}

function download(into: string): void {
  const debs = join(into, 'debs');
  mkdirSync(debs, { recursive: true });
  const names = [kernelPackage(), ...xenPackages];
  process.stderr.write(`lab: downloading ${names.length} Debian packages (75 MB) ...\n`);
  try {
    run('apt-get', ['download', '-q', ...names], { cwd: debs });
  } catch (error) {
    throw new LabError(
      `${(error as Error).message}\nThe lab needs the package lists of Debian 12 (bookworm).`,
    );
  }
  for (const file of readdirSync(debs)) {
    const part = file.startsWith('linux-image') ? 'kernel' : 'xen';
    mkdirSync(join(into, part), { recursive: true });
    run('dpkg-deb', ['-x', join(debs, file), join(into, part)]);
  }
}

/** Downloads and unpacks the packages, once; later calls only look. Throws LabError. */
export function needPackages(): Packages {
  const dir = join(cacheDir, 'packages');
  if (!existsSync(dir)) {
    const partial = `${dir}.${process.pid}.partial`;
    rmSync(partial, { recursive: true, force: true });
    try {
      download(partial);
      if (!existsSync(dir)) renameSync(partial, dir);
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }
  const names = readdirSync(join(dir, 'debs')).sort();
  return {
    kernelDir: join(dir, 'kernel'),
    xenDir: join(dir, 'xen'),
    key: createHash('sha256').update(names.join('\n')).digest('hex'),
  };
}

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { LabError } from '../errors.js';
import { sourceDir } from '../paths.js';
import type { Modules } from './modules.js';
import type { Packages } from './packages.js';
import { run } from './tools.js';

const folders =
  'proc sys dev run tmp root project images domu etc/xen/scripts etc/lab etc/lvm usr/bin usr/sbin usr/lib usr/lib64 ' +
  'var/lib/xen var/lib/xenstored var/log/xen/console var/cache';
const bootModules = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4'];
const rootModules = [
  'virtio_net',
  'xen-evtchn',
  'xen-privcmd',
  'xenfs',
  'xen-gntdev',
  'xen-gntalloc',
  'xen-blkback',
  'xen-netback',
  'loop',
  'bridge',
  'xfs',
  'dm-thin-pool',
];
/** Of this machine, for file systems and volumes that guests' disks are kept on. */
const diskPrograms = ['/sbin/mkfs.xfs', '/sbin/lvm'];
const lvmVerbs = ['pvcreate', 'vgcreate', 'lvcreate', 'lvs', 'lvremove', 'lvchange', 'vgs', 'vgchange'];

function busybox(root: string): void {
  const bin = join(root, 'usr/bin');
  copyFileSync('/bin/busybox', join(bin, 'busybox'));
  for (const name of run('/bin/busybox', ['--list']).trim().split('\n'))
    if (name !== 'busybox' && !existsSync(join(bin, name))) symlinkSync('busybox', join(bin, name));
}

function libraries(root: string, xenDir: string, programs: string[]): void {
  const into = join(root, 'usr/lib/x86_64-linux-gnu');
  const own = join(xenDir, 'usr/lib/x86_64-linux-gnu');
  const environment = { ...process.env, LD_LIBRARY_PATH: own };
  for (const program of programs) {
    const listed = spawnSync('ldd', [program], { env: environment, encoding: 'utf8' });
    for (const line of listed.stdout.split('\n')) {
      if (line.includes('not found')) throw new LabError(`${program} needs${line}, which this machine lacks`);
      const path = /=> (\/\S+)/.exec(line)?.[1];
      if (path !== undefined && !path.startsWith(own) && !existsSync(join(into, basename(path))))
        copyFileSync(realpathSync(path), join(into, basename(path)));
    }
  }
}

function xenFiles(root: string, xenDir: string): void {
  for (const part of ['usr/lib/xen-4.17', 'usr/lib/xen-common', 'usr/lib/x86_64-linux-gnu'])
    cpSync(join(xenDir, part), join(root, part), { recursive: true, verbatimSymlinks: true });
  cpSync(join(xenDir, 'etc/xen/xl.conf'), join(root, 'etc/xen/xl.conf'));
  for (const name of readdirSync(join(xenDir, 'usr/bin')).filter((file) => file.startsWith('xenstore')))
    cpSync(join(xenDir, 'usr/bin', name), join(root, 'usr/bin', name), { verbatimSymlinks: true });
  symlinkSync('../lib/xen-4.17/bin/xl', join(root, 'usr/sbin/xl'));
}

function ownFiles(root: string): void {
  const places: Record<string, string> = {
    start: 'etc/lab/start',
    agent: 'etc/lab/agent',
    inittab: 'etc/inittab',
    profile: 'etc/profile',
    block: 'etc/xen/scripts/block',
    vif: 'etc/xen/scripts/vif-bridge',
    'lvm.conf': 'etc/lvm/lvm.conf',
  };
  for (const [name, place] of Object.entries(places)) {
    copyFileSync(join(sourceDir, 'dom0', name), join(root, place));
    chmodSync(join(root, place), 0o755);
  }
  writeFileSync(join(root, 'etc/passwd'), 'root::0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n');
  writeFileSync(join(root, 'etc/hosts'), '127.0.0.1 localhost\n10.9.0.1 lab1\n10.9.0.2 lab2\n');
}

/** Lays out dom0's root folder, and beside it the folder of its first initrd, under `dir`. Throws LabError. */
export function layOutDom0(dir: string, packages: Packages, modules: Modules): void {
  const root = join(dir, 'root');
  for (const folder of folders.split(' ')) mkdirSync(join(root, folder), { recursive: true });
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(root, name));
  symlinkSync('/run', join(root, 'var/run'));
  symlinkSync('/run/lock', join(root, 'var/lock'));
  symlinkSync('/project/bin/dormouse', join(root, 'usr/bin/dormouse'));
  xenFiles(root, packages.xenDir);
  const xenBin = join(packages.xenDir, 'usr/lib/xen-4.17/bin');
  const programs = ['xl', 'xenstored', 'libxl-save-helper', 'xenconsoled', 'xen-init-dom0', 'xenctx'];
  libraries(root, packages.xenDir, [
    ...programs.map((name) => join(xenBin, name)),
    join(packages.xenDir, 'usr/bin/xenstore-ls'),
    process.execPath,
    ...diskPrograms,
  ]);
  copyFileSync(realpathSync('/lib64/ld-linux-x86-64.so.2'), join(root, 'usr/lib64/ld-linux-x86-64.so.2'));
  copyFileSync(process.execPath, join(root, 'usr/bin/node'));
  for (const path of diskPrograms) copyFileSync(realpathSync(path), join(root, 'usr/sbin', basename(path)));
  for (const verb of lvmVerbs) symlinkSync('lvm', join(root, 'usr/sbin', verb));
  busybox(root);
  ownFiles(root);
  layOutBoot(join(dir, 'boot'), root, modules);
}

function layOutBoot(boot: string, root: string, modules: Modules): void {
  mkdirSync(join(boot, 'bin'), { recursive: true });
  copyFileSync('/bin/busybox', join(boot, 'bin/busybox'));
  copyFileSync(join(sourceDir, 'dom0/boot'), join(boot, 'init'));
  chmodSync(join(boot, 'init'), 0o755);
  const loaded = modules.install(bootModules, join(boot, 'modules'));
  modules.install(rootModules, join(root, 'usr/lib/lab-modules'), loaded);
}

import { chmodSync, copyFileSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { sourceDir } from '../paths.js';
import type { Modules } from './modules.js';
import { run } from './tools.js';

/** Lays out the root of the guests' initrd. Throws LabError. */
export function layOutGuest(root: string, modules: Modules): void {
  for (const folder of ['bin', 'sbin', 'proc', 'sys', 'dev', 'modules'])
    mkdirSync(join(root, folder), { recursive: true });
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  symlinkSync('busybox', join(root, 'bin/sh'));
  for (const [name, place] of [
    ['init', 'init'],
    ['poweroff', 'sbin/poweroff'],
  ] as const) {
    copyFileSync(join(sourceDir, 'guest', name), join(root, place));
    chmodSync(join(root, place), 0o755);
  }
  for (const name of ['xen-blkfront', 'xen-netfront', 'xen-gntdev'])
    copyFileSync(modules.file(name), join(root, 'modules', `${name}.ko`));
  const load = join(sourceDir, 'guest/load.c');
  run('gcc', [
    '-static',
    '-O2',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-pthread',
    load,
    '-o',
    join(root, 'bin/load'),
  ]);
}

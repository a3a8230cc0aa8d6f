/** What of the xen host is built here, and a Xen of files for it (test/support/fake_xen.c). */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon.js';

const release = join(packageRoot, 'build/Release');
const found = existsSync(release)
  ? readdirSync(release).find((file) => file.startsWith('dormouse-xen-watcher-'))
  : undefined;

/** Why there is no watcher to test, or false. */
export const noWatcher: string | false = found === undefined && 'built without libxen-dev';
/** Why there is no addon to be run over a Xen of files, or false. */
export const noFakeXen: string | false =
  noWatcher || (spawnSync('cc', ['--version']).status !== 0 && 'no C compiler');

/** Paths of the watcher's program and of the addon; of nothing where `noWatcher` says so. */
export const watcherProgram = join(release, found ?? '');
export const xenAddon = join(
  release,
  `${(found ?? '').replace('dormouse-xen-watcher-', 'dormouse_xen_')}.node`,
);

/** Compiles fake_xen.c into `path`, to be preloaded. */
export function compileFakeXen(path: string): void {
  const source = join(packageRoot, 'test/support/fake_xen.c');
  execFileSync('cc', ['-shared', '-fPIC', '-D__XEN_TOOLS__', source, '-o', path]);
}

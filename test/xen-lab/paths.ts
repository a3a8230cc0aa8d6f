import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's root folder; this file runs from dist/test/xen-lab. */
export const projectRoot = join(dirname(fileURLToPath(import.meta.url)), '../../..');

/** The lab's files that are not TypeScript: dom0/ and guest/. */
export const sourceDir = join(projectRoot, 'test/xen-lab');

/** Packages and built images outlive a clean of the tree: they are slow to get and the same for every clone. */
export const cacheDir =
  process.env.DORMOUSE_LAB_CACHE ??
  join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'dormouse-lab');

/** Serial console logs, kept for a look afterwards. */
export const logDir = join(projectRoot, 'build/lab');

import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { LabError } from '../errors.js';
import { cacheDir, projectRoot } from '../paths.js';
import { makeDisk } from './build.js';

function filesUnder(path: string): string[] {
  const full = join(projectRoot, path);
  if (!existsSync(full)) return [];
  if (!statSync(full).isDirectory()) return [path];
  return readdirSync(full, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(path, join(entry.parentPath, entry.name).slice(full.length)));
}

function projectFiles(): string[] {
  const built = join(projectRoot, 'build/Release');
  const addons = existsSync(built) ? readdirSync(built).filter((name) => /^[\w-]+\.node$/.test(name)) : [];
  const helpers = existsSync(built)
    ? readdirSync(built).filter((name) => /^dormouse-[\w-]+$/.test(name))
    : [];
  return [
    'package.json',
    ...['bin', 'dist/bundle', 'dist/lab'].flatMap(filesUnder),
    ...[...addons, ...helpers].map((name) => join('build/Release', name)),
  ].filter((path) => !path.endsWith('.map') && existsSync(join(projectRoot, path)));
}

function place(path: string, into: string): void {
  const to = join(into, path);
  mkdirSync(dirname(to), { recursive: true });
  try {
    linkSync(join(projectRoot, path), to);
  } catch {
    cpSync(join(projectRoot, path), to, { verbatimSymlinks: true });
  }
}

/**
 * Makes the disk that dom0 mounts on /project: what runs of the project, its addons, and the programs of the tests. One that was
 * made of the same files is used again. Throws LabError.
 */
export function needProjectDisk(): string {
  const files = projectFiles();
  if (!files.some((path) => /dormouse_xen_\w+\.node$/.test(path)))
    throw new LabError(
      'the project was built without the xen host. On Debian 12: sudo apt-get install -y libxen-dev && npm run build',
    );
  const hash = createHash('sha256');
  let bytes = 0;
  for (const path of files) {
    const { size, mtimeMs } = statSync(join(projectRoot, path));
    bytes += Math.ceil(size / 4096) * 4096;
    hash.update(`${path} ${size} ${mtimeMs}\n`);
  }
  const disks = join(cacheDir, 'project');
  const disk = join(disks, `${hash.digest('hex').slice(0, 16)}.ext4`);
  if (existsSync(disk)) return disk;
  mkdirSync(disks, { recursive: true });
  const staging = mkdtempSync(join(disks, 'staging-'));
  try {
    for (const path of files) place(path, join(staging, 'tree'));
    makeDisk(join(staging, 'disk'), join(staging, 'tree'), Math.ceil((bytes * 1.1) / (1 << 20)) + 32);
    renameSync(join(staging, 'disk'), disk);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
  return disk;
}

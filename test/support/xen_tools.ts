/** What only some machines have: Debian's stream verifier, and files that a real `xl save` wrote. */
import { spawnSync } from 'node:child_process';
import { createReadStream, createWriteStream, existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';

const verifier = process.env.DORMOUSE_VERIFY_STREAM ?? '/usr/lib/xen-4.17/bin/verify-stream-v2';

/** For a test's `skip`: false, or why there is no verifier. */
export const noVerifier: string | false =
  existsSync(verifier) && spawnSync('python3', ['--version']).status === 0
    ? false
    : `no verify-stream-v2 (package xen-utils-4.17, or DORMOUSE_VERIFY_STREAM): looked for ${verifier}`;

/** What `verify-stream-v2` says of an xl file: null if it accepts it. */
export function verifierComplaint(path: string): string | null {
  const modules = join(dirname(verifier), '../lib/python');
  const done = spawnSync('python3', [verifier, '-i', path, '-f', 'xl', '-v'], {
    encoding: 'utf8',
    timeout: 50_000,
    env: { ...process.env, PYTHONPATH: modules, PYTHONDONTWRITEBYTECODE: '1' },
  });
  return done.status === 0 ? null : `status ${String(done.status)}: ${done.stdout}${done.stderr}`;
}

const folder = process.env.DORMOUSE_XL_FILES ?? '';

/** For a test's `skip`: false, or why there are no real files. */
export const noXlFiles: string | false =
  folder !== '' && existsSync(folder)
    ? false
    : 'no files of a real xl save (set DORMOUSE_XL_FILES to a folder of *.xl or *.xl.gz)';

/** Paths of the real files, packed or not. */
export function xlFiles(): string[] {
  if (noXlFiles !== false) return [];
  return readdirSync(folder)
    .filter((name) => /\.xl(\.gz)?$/.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** Puts an unpacked copy of a real file at `to`. */
export async function unpack(from: string, to: string): Promise<void> {
  const target = createWriteStream(to);
  if (from.endsWith('.gz')) await pipeline(createReadStream(from), createGunzip(), target);
  else await pipeline(createReadStream(from), target);
}

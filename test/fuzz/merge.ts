/** Makes test/fuzz-corpus/NAME anew: as few and as small inputs as reach all that the corpus reaches, up to a bound. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mergeNative, nativeTargets, NotBuilt } from './native.js';
import { placesOf } from './target.js';

/** Of one target. */
const mostKeptBytes = 24 << 10;

const minimise = fileURLToPath(new URL('minimise.js', import.meta.url));

function mergeScript(name: string, to: string): void {
  const done = spawnSync(process.execPath, [minimise, name, to], { encoding: 'utf8' });
  if (done.status !== 0) throw new NotBuilt(`${name}: ${done.stderr}`);
}

export async function mergeKept(
  name: string,
  clang: string | null,
): Promise<{ files: number; bytes: number }> {
  const to = mkdtempSync(join(tmpdir(), 'dormouse-fuzz-'));
  try {
    const target = nativeTargets[name];
    if (target && clang !== null) await mergeNative(clang, name, target, to);
    else mergeScript(name, to);
    return replaceKept(placesOf(name).kept, to);
  } finally {
    rmSync(to, { recursive: true });
  }
}

/** The smallest ones first. */
function replaceKept(kept: string, from: string): { files: number; bytes: number } {
  const all = readdirSync(from).map((file) => ({ file, size: statSync(join(from, file)).size }));
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(kept, { recursive: true });
  let [files, bytes] = [0, 0];
  for (const { file, size } of all.sort((a, b) => a.size - b.size)) {
    if (bytes + size > mostKeptBytes) break;
    copyFileSync(join(from, file), join(kept, file.slice(0, 16)));
    files++;
    bytes += size;
  }
  return { files, bytes };
}

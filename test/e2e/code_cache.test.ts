/** The code cache beside the programs: it is taken, and nothing depends on it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../src/addon.js';

const dir = mkdtempSync(join(tmpdir(), 'dormouse-cache-'));
after(() => rmSync(dir, { recursive: true }));

test('this Node.js takes the cache that the build wrote', () => {
  const start = pathToFileURL(join(packageRoot, 'bin/start.mjs')).href;
  for (const name of ['dormouse', 'dormouse-save-helper']) {
    const program = join(packageRoot, 'dist/bundle', `${name}.js`);
    const source = `
      import { readFileSync } from 'node:fs';
      import { moduleScript } from ${JSON.stringify(start)};
      const cache = readFileSync(${JSON.stringify(`${program}.cache`)});
      console.log(moduleScript(${JSON.stringify(program)}, cache).cachedDataRejected);`;
    const ran = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
    assert.deepEqual([ran.stdout, ran.stderr], ['false\n', ''], name);
  }
});

test('without it, or with one that is cut short, empty or of another version, a program starts as well', () => {
  const tree = join(dir, 'tree');
  mkdirSync(join(tree, 'dist'), { recursive: true });
  for (const part of ['bin', 'dist/bundle', 'package.json'])
    cpSync(join(packageRoot, part), join(tree, part), { recursive: true });
  symlinkSync(join(packageRoot, 'build'), join(tree, 'build'));
  const path = join(tree, 'dist/bundle/dormouse.js.cache');
  const cache = readFileSync(path);
  const otherVersion = Buffer.from(cache);
  otherVersion.writeUInt32LE(otherVersion.readUInt32LE(4) ^ 1, 4);
  const version = (): unknown[] => {
    const ran = spawnSync(process.execPath, [join(tree, 'bin/dormouse'), '--json', 'version'], {
      encoding: 'utf8',
    });
    return [ran.status, ran.stderr, ran.stdout];
  };
  const asBuilt = version();
  assert.deepEqual(asBuilt.slice(0, 2), [0, '']);
  for (const bytes of [cache.subarray(0, cache.length / 2), Buffer.alloc(0), otherVersion]) {
    writeFileSync(path, bytes);
    assert.deepEqual(version(), asBuilt);
  }
  rmSync(path);
  assert.deepEqual(version(), asBuilt);
});

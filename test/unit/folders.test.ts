import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeFolders } from '../../src/folders.js';
import { tempDir } from '../support/images.js';

test('folders are made from the top, and those that are there are left', (t) => {
  const dir = tempDir(t);
  makeFolders(join(dir, 'a/b/c'), 0o700);
  makeFolders(join(dir, 'a/b/c'), 0o755);
  assert.equal(statSync(join(dir, 'a/b/c')).mode & 0o777, 0o700);
  writeFileSync(join(dir, 'file'), '');
  assert.throws(() => makeFolders(join(dir, 'file'), 0o700), { code: 'EEXIST' });
  assert.throws(() => makeFolders(join(dir, 'file/below'), 0o700), { code: 'ENOTDIR' });
  symlinkSync(join(dir, 'nowhere'), join(dir, 'link'));
  assert.throws(() => makeFolders(join(dir, 'link/below'), 0o700), { code: /EEXIST|ENOENT/u });
});

test('where a folder can never be made that ends with an error', () => {
  // In a process of its own: what hangs there cannot be interrupted here.
  const module = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
  const script = `const { makeFolders } = await import(${module('../../src/folders.js')});
    const { imageSigner } = await import(${module('../../src/trust/key_store.js')});
    try { makeFolders('/proc/nope/below', 0o700) } catch ({ code }) { console.log(code) }
    console.log(imageSigner(console.log))`;
  const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, DORMOUSE_KEY_DIR: '/proc/nope' },
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  });
  assert.equal(signal, null);
  assert.match(stdout, /^(ENOENT|EACCES)\nthe image will not be signed: .*\/proc\/nope.*\nnull\n$/u);
});

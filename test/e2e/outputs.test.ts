/** Results that cannot be written where they should go. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { tempDir } from '../support/images.js';

const main = join(packageRoot, 'dist/src/cli/program/main.js');

test('a full disk behind stdout or stderr crashes nothing, and what was done is told', (t) => {
  // Before the folder goes, which is removed by what is registered next.
  t.after(() => {
    assert.equal(run('host stop --force', 'pipe').status, 0);
    closeSync(full);
  });
  const dir = tempDir(t);
  const full = openSync('/dev/full', 'w');
  const env = { ...process.env, DORMOUSE_RUN_DIR: join(dir, 'run'), DORMOUSE_HOST: 'embedded:full' };
  const run = (line: string, stdout: number | 'pipe' = full, stderr: number | 'pipe' = 'pipe') => {
    const stdio = ['ignore', stdout, stderr] as const;
    const args = [main, ...line.split(' ')];
    return spawnSync(process.execPath, args, { env, stdio: [...stdio], encoding: 'utf8', cwd: dir });
  };
  const created = run('create name=a memory=4 program=counter rate=100');
  assert.equal(created.status, 21, created.stderr);
  assert.match(
    created.stderr,
    /^dormouse: it was done, but .*ENOSPC.*\n {2}created a \(domain \d+\), running\n/u,
  );
  const saved = run('save a a.dmi --json');
  assert.equal(saved.status, 21, saved.stderr);
  const told = JSON.parse(saved.stderr) as { name: string; guest: string; details: string[] };
  assert.deepEqual([told.name, told.guest], ['RESULT_LOST', 'gone']);
  assert.match(told.details.join('\n'), /^saved: +a .*ended here/u);
  assert.ok(existsSync(join(dir, 'a.dmi')));
  for (const line of ['list', 'version', '--help', '-V', 'image inspect a.dmi']) {
    const { status, stderr } = run(line);
    assert.equal(status, 1, `${line}: ${stderr}`);
    assert.match(stderr, /^dormouse: the result cannot be written to stdout \(ENOSPC.*\n/u);
    assert.doesNotMatch(stderr, / at .*:\d+/u);
  }
  // Without a place for words the work is done all the same.
  assert.equal(run('restore a.dmi', 'pipe', full).status, 0);
  assert.equal(run('list nobody', 'pipe', full).status, 4);
});

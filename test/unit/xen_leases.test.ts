/** The files of a lease of the xen host, with a stand-in for its watcher: what the real one undoes is the lab's to test. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { XenLeases } from '../../src/host/xen/leases.js';

const uuid = '01234567-89ab-cdef-0123-456789abcdef';

/** As the watcher, it removes the files of a lease when it undoes it; `undo` is what it says then, or the exit code. */
function withLeases(
  t: TestContext,
  undo: string | number,
): { leases: XenLeases; dir: string; notices: string[] } {
  const base = mkdtempSync(join(tmpdir(), 'dormouse-leases-'));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const [dir, watcher] = [join(base, 'run'), join(base, 'watcher')];
  const undone =
    typeof undo === 'number' ? `exit ${undo}` : `rm -f "$2/$3.lock" "$2/$3.journal"; echo "${undo}"`;
  const script = `#!/bin/sh\nif [ "$1" = watch ]; then word=$(head -c 1); [ "$word" = d ] && exit 0; fi\n${undone}\n`;
  writeFileSync(watcher, script, { mode: 0o700 });
  const notices: string[] = [];
  return { leases: new XenLeases(dir, watcher, (text) => notices.push(text)), dir, notices };
}

test('a journal says line by line what is open; nothing is left when all was struck', async (t) => {
  const { leases, dir } = withLeases(t, 'undone');
  const lease = await leases.acquire(5, uuid, 'save', () => undefined);
  const journal = (): string => readFileSync(join(dir, '5.journal'), 'utf8');
  assert.match(readFileSync(join(dir, '5.lock'), 'utf8'), new RegExp(`^${process.pid} \\d+ ${uuid} save\n$`));
  lease.note('suspend');
  lease.note('monitor 77 1234');
  assert.equal(journal(), 'suspend\nmonitor 77 1234\n');
  lease.strike('suspend');
  assert.equal(journal(), 'monitor 77 1234\n');
  lease.strikeAll();
  assert.equal(journal(), '');
  await lease.release();
  assert.deepEqual(readdirSync(dir), []);
});

test("what is still open when a lease ends is the watcher's to undo, in one way", async (t) => {
  const { leases, dir } = withLeases(t, 'undone');
  const build = await leases.acquireBuild(uuid);
  assert.ok(existsSync(build.dir));
  build.note('build', 'was 3', 'group 88 99');
  assert.equal(readFileSync(join(dir, `build-${uuid}.journal`), 'utf8'), 'build\nwas 3\ngroup 88 99\n');
  await build.release();
  assert.deepEqual(readdirSync(dir), []);
});

test('a lease whose owner lives is refused; what the dead left is undone and told', async (t) => {
  const refusing = withLeases(t, 3);
  const lease = await refusing.leases.acquire(7, uuid, 'save', () => undefined);
  await assert.rejects(
    refusing.leases.acquire(7, uuid, 'digest', () => undefined),
    { code: 'LOCKED' },
  );
  await lease.release();
  const { leases, dir, notices } = withLeases(t, 'resumed it');
  await (await leases.acquire(7, uuid, 'save', () => undefined)).release();
  writeFileSync(join(dir, '7.lock'), `${2 ** 22 + 1} 1 ${uuid} save\n`);
  await leases.undoAllOfDead();
  assert.deepEqual(notices, ['domain 7: a process that worked on it died; resumed it']);
  assert.deepEqual(readdirSync(dir), []);
});

/** The files of a lease of the xen host, with a stand-in for its watcher: what the real one undoes is the lab's to test. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { XenLeases } from '../../src/host/xen/leases.js';

const uuid = '01234567-89ab-cdef-0123-456789abcdef';

/** As the watcher, it removes the files of a lease when it undoes it; `undo` is what it says then, or the exit code. */
function withLeases(
  t: TestContext,
  undo: string | number,
  exitCode = 0,
): { leases: XenLeases; dir: string; notices: string[] } {
  const base = mkdtempSync(join(tmpdir(), 'dormouse-leases-'));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const [dir, watcher] = [join(base, 'run'), join(base, 'watcher')];
  const undone =
    typeof undo === 'number'
      ? `exit ${undo}`
      : `echo "${undo}"; ${exitCode === 0 ? 'rm -f "$2/$3.lock" "$2/$3.journal"' : `exit ${exitCode}`}`;
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
  lease.note('suspend 0a1b');
  lease.note('monitor 77 1234');
  assert.equal(journal(), 'suspend 0a1b\nmonitor 77 1234\n');
  lease.strikeKind('suspend');
  assert.equal(journal(), 'monitor 77 1234\n');
  lease.strikeAll();
  assert.equal(journal(), '');
  await lease.release();
  assert.deepEqual(readdirSync(dir), []);
});

test('what must be whole is done before the watcher is told; a lease that has ended does nothing more', async (t) => {
  const { leases, dir } = withLeases(t, 'undone');
  const lease = await leases.acquire(5, uuid, 'save', () => undefined);
  lease.note('suspend 0a1b');
  let asked = (): void => undefined;
  const asking = lease.whole(() => new Promise<void>((resolve) => (asked = resolve)));
  const released = lease.release();
  await sleep(300);
  assert.ok(existsSync(join(dir, '5.journal')), 'nobody has undone it yet');
  assert.throws(() => lease.whole(() => Promise.resolve()), { code: 'CANCELLED' });
  asked();
  await Promise.all([asking, released]);
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

test('what cannot be written down is not noted, and not undone later', async (t) => {
  const { leases, dir } = withLeases(t, 'undone');
  const lease = await leases.acquire(5, uuid, 'save', () => undefined);
  lease.note('logdirty');
  mkdirSync(join(dir, '5.journal.new'));
  assert.throws(() => lease.note('pause'));
  assert.equal(lease.has('pause'), false, 'a pause that was not made is not taken back');
  assert.throws(() => lease.strike('logdirty'));
  assert.equal(lease.has('logdirty'), true);
  rmSync(join(dir, '5.journal.new'), { recursive: true });
  lease.strikeAll();
  await lease.release();
});

test('a guest that is still on its way to its suspend point is named, by this lease and by the next', async (t) => {
  const { leases, dir, notices } = withLeases(t, 'it took a request to suspend', 4);
  const lease = await leases.acquire(9, uuid, 'save', () => undefined);
  lease.note('suspend 0a1b');
  await assert.rejects(lease.release(), {
    code: 'SUSPEND_TIMEOUT',
    guest: 'unknown',
    message: 'domain 9: it took a request to suspend',
  });
  assert.deepEqual(readdirSync(dir).sort(), ['9.journal', '9.lock'], 'what is open stays noted');
  writeFileSync(join(dir, '9.lock'), `${2 ** 22 + 1} 1 ${uuid} save\n`);
  const next = leases.acquire(9, uuid, 'save', () => undefined);
  await assert.rejects(next, {
    code: 'LOCKED',
    message: /a process that worked on it died; it took a request/,
  });
  await leases.undoAllOfDead();
  assert.match(notices.join(), /^domain 9: .*it took a request to suspend/);
});

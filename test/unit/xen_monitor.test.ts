/** Which process watches a domain, and that it is stopped and continued; the process is a program that is called xl. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, copyFileSync, openSync, closeSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { continueMonitor, findMonitor, stopMonitor, watchedDomain } from '../../src/host/xen/monitor.js';
import { until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

/** No real domain has this id. */
const domid = 32_751;

const waiting = (pid: number, name = 'web1', id = domid): string =>
  `Waiting for domain ${name} (domid ${id}) to die [pid ${pid}]\n`;

function startXl(
  t: TestContext,
  dir: string,
  name = 'xl',
  [from, ...args]: readonly [string, ...string[]] = ['/bin/sleep', '60'],
): { child: ChildProcess; pid: number; log: string } {
  const [program, log] = [join(dir, name), join(dir, `${name}.log`)];
  copyFileSync(from, program);
  const out = openSync(log, 'a');
  const child = spawn(program, args, { stdio: ['ignore', out, out] });
  closeSync(out);
  t.after(() => child.kill('SIGKILL'));
  return { child, pid: child.pid ?? 0, log };
}

const stateOf = (pid: number): string | undefined =>
  readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.[0];

test('the last domain that an xl process said it waits for is the one it watches', () => {
  assert.equal(watchedDomain(7, waiting(7)), domid);
  assert.equal(watchedDomain(7, `${waiting(7, 'a', 1)}Done. Rebooting now\n${waiting(7, 'a', 2)}`), 2);
  assert.equal(watchedDomain(7, waiting(8)), null, 'a log it has inherited');
  assert.equal(watchedDomain(7, `${waiting(7)}${waiting(8)}`), null, 'the log is another one’s by now');
  assert.equal(watchedDomain(7, 'Waiting for domain web1\n'), null);
  assert.equal(watchedDomain(7, waiting(7, 'web (domid 9) to die [pid 7] x')), domid, 'an odd name');
});

test('a monitor is found, stands while it is stopped, and goes on', async (t) => {
  const dir = tempDir(t);
  const { child, pid, log } = startXl(t, dir);
  assert.equal(findMonitor(domid), null);
  appendFileSync(log, waiting(pid));
  await until('it is found', 5000, () => findMonitor(domid) !== null);
  assert.equal(findMonitor(domid - 1), null);
  const monitor = findMonitor(domid);
  assert.ok(monitor);
  assert.equal(monitor.pid, pid);
  await stopMonitor(monitor);
  assert.equal(stateOf(pid), 'T');
  assert.equal(findMonitor(domid), null, 'one that is stopped already is not ours to continue');
  continueMonitor({ ...monitor, startTime: '1' });
  assert.equal(stateOf(pid), 'T', 'the id was another process’s');
  continueMonitor(monitor);
  await until('it goes on', 5000, () => stateOf(pid) === 'S');
  child.kill('SIGKILL');
  await until('it ended', 5000, () => child.exitCode !== null || child.signalCode !== null);
  await stopMonitor(monitor);
  continueMonitor(monitor);
});

test('a process of another name is no monitor, whatever it says', async (t) => {
  const { pid, log } = startXl(t, tempDir(t), 'not-xl');
  appendFileSync(log, waiting(pid));
  await until('it has started', 5000, () =>
    readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('not-xl'),
  );
  assert.equal(findMonitor(domid), null);
});

test('one that holds a lock is not left standing with it', async (t) => {
  const dir = tempDir(t);
  const { pid, log } = startXl(t, dir, 'xl', ['/usr/bin/flock', join(dir, 'lock'), 'sleep', '60']);
  appendFileSync(log, waiting(pid));
  await until('it has its lock', 5000, () =>
    new RegExp(` ${pid} `).test(readFileSync('/proc/locks', 'utf8')),
  );
  const monitor = findMonitor(domid);
  assert.ok(monitor);
  await assert.rejects(stopMonitor(monitor), { code: 'LOCKED' });
  await until('it goes on', 5000, () => stateOf(pid) === 'S');
});

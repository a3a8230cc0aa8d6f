import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { suspensions } from './extent.js';
import { Guest, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { sourceDir } from './paths.js';

const script = 'node /project/dist/lab/host_checks.js';
const leaseFiles = 'ls /run/dormouse/xen 2>/dev/null';
/** Within this time after its death nothing of a process is left on a guest. */
const undoneMs = 5000;

describe('the xen host', () => {
  let lab: Lab;
  let dir: string;
  const guests: Guest[] = [];
  const create = async (options: GuestOptions): Promise<Guest> => {
    const guest = await Guest.create(lab, { loadMib: 8, ...options });
    guests.push(guest);
    return guest;
  };
  const check = async (...args: string[]): Promise<Record<string, unknown>> =>
    JSON.parse(await lab.must(`${script} ${args.join(' ')}`, { timeoutMs: 300_000 })) as Record<
      string,
      unknown
    >;

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'dormouse-oracle-'));
    const oracle = join(dir, 'page_types');
    const source = join(sourceDir, 'oracle/page_types.c');
    execFileSync('cc', ['-O2', '-D__XEN_TOOLS__', source, '-o', oracle, '-lxenctrl', '-lxenguest']);
    lab = await startLab();
    await lab.put(oracle, '/tmp/page_types');
  });
  afterEach(async () => {
    for (const guest of guests.splice(0)) await guest.destroy();
  });
  after(async () => {
    await lab.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test('xenstore, list and page types agree with what Xen and its own tools say', async () => {
    const pv = await create({ name: 'pv1', type: 'pv' });
    await check('store');
    await check('list');
    await lab.must('xl pause pv1');
    await check('list');
    await lab.must('xl unpause pv1');
    await check('pageTypes', 'pv1', '/tmp/page_types');
    await check('locked', 'pv1');
    await check('logDirtyRefused', 'pv1');
    await pv.waitTicks(2);
  });

  for (const [type, vcpus] of [...suspensions.pvVcpus.map((n) => ['pv', n] as const), ['pvh', 1] as const])
    test(`${type} with ${vcpus} vCPU: state, memory, suspend and resume`, async (t) => {
      const guest = await create({ name: 'guest', type, vcpus });
      for (const args of [
        ['canonical'],
        ['copyTwice'],
        ['contentTracker'],
        ['suspend', String(suspensions.times)],
      ])
        t.diagnostic(JSON.stringify(await check(args[0] ?? '', 'guest', ...args.slice(1))));
      await check('suspendTimeout', 'guest');
      await check('watcherKilled', 'guest');
      if (type === 'pvh') {
        t.diagnostic(JSON.stringify(await check('logDirty', 'guest')));
        await check('logTakenOver', 'guest');
      }
      await guest.waitTicks(3);
      await check('destroy', 'guest');
    });

  /** Starts a process that holds the guest in some way; resolves to its pid once it does. */
  async function holding(guest: string, what: string): Promise<string> {
    await lab.must(
      `rm -f /tmp/hold; ${script} hold ${guest} ${what} > /tmp/hold 2>&1 & echo $! > /tmp/hold.pid`,
    );
    await lab.must('for i in $(seq 600); do grep -q holding /tmp/hold && exit 0; sleep 0.1; done; exit 1', {
      timeoutMs: 90_000,
    });
    return (await lab.must('cat /tmp/hold.pid')).trim();
  }

  /** Waits until no lease is left, at most `undoneMs`. */
  async function undone(): Promise<void> {
    const end = Date.now() + undoneMs;
    while ((await lab.exec(leaseFiles)).stdout !== '') {
      assert.ok(Date.now() < end, `still there: ${(await lab.exec(leaseFiles)).stdout}`);
      await sleep(100);
    }
  }

  for (const [type, what] of [
    ['pv', 'suspend'],
    ['pv', 'pause'],
    ['pvh', 'suspend'],
    ['pvh', 'logdirty'],
  ] as const)
    test(`kill -9 of a process that holds a ${type} guest (${what}): it runs again within 5 s`, async () => {
      const guest = await create({ name: 'guest', type });
      const pid = await holding('guest', what);
      await lab.must(`kill -9 ${pid}`);
      await undone();
      await guest.waitState((state) => state !== undefined && /^[r-][b-]----$/.test(state), undoneMs);
      await guest.waitTicks(2);
    });

  test('with its watcher dead too, the next lease gives the guest back and says so', async () => {
    const guest = await create({ name: 'guest', type: 'pv' });
    const pid = await holding('guest', 'suspend');
    await lab.must(`kill -9 $(pidof dormouse-xen-watcher-4_17) ${pid}`);
    await sleep(500);
    assert.match((await guest.state()) ?? '', /ss/);
    const { code, stderr } = await lab.exec(`${script} takeOver guest`);
    assert.equal(code, 0);
    assert.match(stderr, /a process that worked on it died; resumed it, released its lease/);
    await guest.waitTicks(2);
  });

  test('a domain destroyed while a process maps it is gone with that process', async () => {
    await create({ name: 'guest', type: 'pv' });
    const pid = await holding('guest', 'none');
    await lab.must('xl destroy guest');
    assert.match(await lab.must('xl list'), /^\(null\)/m);
    await lab.must(`kill -9 ${pid}`);
    await undone();
    assert.doesNotMatch(await lab.must('xl list'), /^\(null\)/m);
  });
});

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { suspensions } from './extent.js';
import { Guest, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { putOracles } from './oracles.js';

const script = 'node /project/dist/lab/host_checks.js';
const leaseFiles = 'ls /run/dormouse/xen 2>/dev/null';
/** Within this time after its death nothing of a process is left on a guest. */
const undoneMs = 5000;
/** Longer than a watcher waits before it leaves the waiting to a process of its own. */
const lateMs = 17_000;

describe('the xen host', () => {
  let lab: Lab;
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
    lab = await startLab();
    await putOracles(lab, 'page_types', 'dirty_peek');
  });
  afterEach(async () => {
    for (const guest of guests.splice(0)) await guest.destroy();
  });
  after(() => lab.stop());

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
        t.diagnostic(JSON.stringify(await check('logBegunByXl', 'guest')));
        t.diagnostic(JSON.stringify(await check('logLeftToXl', 'guest')));
        await check('pauseOver', 'guest');
      }
      await guest.waitTicks(3);
      await check('destroy', 'guest');
    });

  /** Starts a process that holds the guest in some way; resolves to its pid once it does. */
  async function holding(guest: string, what: string, before = ''): Promise<string> {
    await lab.must(
      `rm -f /tmp/hold; ${before} ${script} hold ${guest} ${what} > /tmp/hold 2>&1 & echo $! > /tmp/hold.pid`,
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

  const askToSuspend = async (guest: string): Promise<void> => {
    const domid = (await lab.must(`xl domid ${guest}`)).trim();
    await lab.must(`xenstore-write /local/domain/${domid}/control/shutdown suspend`);
  };

  test('a guest that suspends long after its request, whose maker was killed, goes on', async () => {
    const guest = await create({ name: 'guest', type: 'pvh' });
    const pid = await holding('guest', 'taken');
    await lab.must(`kill -9 ${pid}`);
    await sleep(lateMs);
    assert.match((await lab.exec(leaseFiles)).stdout, /\.journal\n.*\.lock/, 'it is not called done');
    const next = await lab.exec('dormouse --json save guest /images/late', { timeoutMs: 60_000 });
    assert.match(next.stderr, /"name":"LOCKED".*it took a request to suspend/);
    const spentNs = async (): Promise<number> =>
      (await lab.must('for p in $(pidof dormouse-xen-watcher-4_17); do cat /proc/$p/schedstat; done'))
        .trim()
        .split('\n')
        .reduce((sum, line) => sum + Number(line.split(' ')[0]), 0);
    const before = await spentNs();
    await sleep(2000);
    const share = ((await spentNs()) - before) / 2e9;
    assert.ok(share < 0.3, `waiting takes ${share} of a processor`);
    await askToSuspend('guest');
    await undone();
    await guest.waitTicks(2);
  });

  test("another tool's suspension is left alone where ours was never asked for", async () => {
    const guest = await create({ name: 'guest', type: 'pvh' });
    const pid = await holding('guest', 'noted');
    await askToSuspend('guest');
    await guest.waitState((state) => /ss/.test(state ?? ''), undoneMs);
    await lab.must(`kill -9 ${pid}`);
    await undone();
    assert.match((await guest.state()) ?? '', /ss/);
    await check('resume', 'guest');
    await guest.waitTicks(2);
  });

  test('a service that is ended by its control group does not take the watcher along', async () => {
    const guest = await create({ name: 'guest', type: 'pv' });
    await lab.must('[ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 none /sys/fs/cgroup');
    const pid = await holding(
      'guest',
      'suspend',
      'mkdir -p /sys/fs/cgroup/svc; echo 0 > /sys/fs/cgroup/svc/cgroup.procs;',
    );
    await lab.must(
      `grep -q ${pid} /sys/fs/cgroup/svc/cgroup.procs && echo 1 > /sys/fs/cgroup/svc/cgroup.kill`,
    );
    await undone();
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

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DormouseError, type ErrorCode } from '../../src/errors.js';
import type { DomainEvent } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { startTool } from '../support/tools.js';

const hasCode =
  (code: ErrorCode, text = /./) =>
  (thrown: unknown) =>
    thrown instanceof DormouseError && thrown.code === code && text.test(thrown.message);

const steps = async (host: EmbeddedHost, domid: number): Promise<number> =>
  (await host.progress(domid)).steps.reduce((sum, each) => sum + each, 0);

async function assertRuns(host: EmbeddedHost, domid: number, limitMs: number): Promise<void> {
  const before = await steps(host, domid);
  await until(`domain ${domid} runs`, limitMs, async () => (await steps(host, domid)) > before);
}

async function assertStandsStill(host: EmbeddedHost, domid: number): Promise<void> {
  const before = await steps(host, domid);
  await sleep(50);
  assert.equal(await steps(host, domid), before);
}

async function withGuest(t: TestContext, vcpus = 1): Promise<{ host: EmbeddedHost; domid: number }> {
  const host = await startTestHost(t);
  const config = { program: 'writer', rate: 5000 } as const;
  return { host, domid: await host.create(guestSpec('web1', config, { vcpus }), { paused: false }) };
}

test('domains are found by name, id and uuid; names are unique and ids grow', async (t) => {
  const host = await startTestHost(t);
  const spec = guestSpec('web1');
  const domid = await host.create(spec, { paused: true });
  assert.equal(domid, 1);
  await assert.rejects(host.create(guestSpec('web1'), { paused: true }), hasCode('DOMAIN_EXISTS', /web1/));
  await assert.rejects(host.build(guestSpec('web1')), hasCode('DOMAIN_EXISTS'));
  for (const selector of ['web1', '1', spec.uuid]) assert.equal((await host.find(selector)).domid, domid);
  await assert.rejects(host.find('2'), hasCode('DOMAIN_NOT_FOUND'));
  assert.equal(await host.config(domid), spec.config);
  const info = await host.find('web1');
  assert.deepEqual(
    [info.paused, info.building, info.shutdown, info.vcpus, info.maxMemoryKib, info.memoryKib],
    [true, false, null, 1, 8192, 8192],
  );
  await host.destroy(domid);
  assert.deepEqual(await host.list(), []);
  assert.equal(await host.create(guestSpec('web1'), { paused: true }), 2);
});

test('configurations that make no guest are refused and leave nothing', async (t) => {
  const host = await startTestHost(t);
  const good = guestSpec('web1');
  const bad = [
    { ...good, config: 'not json' },
    { ...good, config: '{"program":"quake"}' },
    { ...good, config: '{"program":"idle","typo":1}' },
    { ...good, config: '{"program":"writer","skewPercent":101}' },
    { ...good, name: '' },
    { ...good, name: 'a b' },
    { ...good, uuid: 'x' },
    { ...good, vcpus: 9 },
    { ...good, maxMemoryKib: 1026 },
    { ...good, maxMemoryKib: 64 },
  ];
  for (const spec of bad)
    await assert.rejects(
      host.create(spec, { paused: true }),
      hasCode('CONFIG_INVALID'),
      JSON.stringify(spec),
    );
  await assert.rejects(host.create({ ...good, type: 'hvm' }, { paused: true }), hasCode('HOST_LACKS'));
  const before = await host.status();
  await assert.rejects(
    host.create({ ...good, maxMemoryKib: 1024 * 1024 }, { paused: true }),
    hasCode('NO_MEMORY'),
  );
  const after = await host.status();
  assert.deepEqual([after.guests, after.freeBytes], [[], before.freeBytes]);
  assert.deepEqual(await host.xenstore.list('/local/domain'), []);
});

test('pause and unpause are idempotent, and apart from what leases hold', async (t) => {
  const { host, domid } = await withGuest(t);
  await host.pause(domid);
  await host.pause(domid);
  assert.equal((await host.find('web1')).paused, true);
  await assertStandsStill(host, domid);
  const lease = await host.acquire(domid, 'save');
  await host.holdPaused(lease);
  await host.unpause(domid);
  await host.unpause(domid);
  assert.equal((await host.find('web1')).paused, true, 'the lease holds it');
  await host.releasePaused(lease);
  await assert.rejects(host.releasePaused(lease), hasCode('DOMAIN_WRONG_STATE'));
  await assertRuns(host, domid, 1000);
  await host.pause(domid);
  await host.holdPaused(lease);
  await lease.release();
  assert.equal((await host.find('web1')).paused, true, 'the user paused it');
  await host.unpause(domid);
  await assertRuns(host, domid, 1000);
});

test('one operation at a time: the second is told who works on the domain', async (t) => {
  const { host, domid } = await withGuest(t);
  const other = await openEmbeddedHost('test');
  t.after(() => other.close());
  const lease = await host.acquire(domid, 'checkpoint');
  const held = new RegExp(`'web1' is held by process ${process.pid} \\(checkpoint\\)`);
  await assert.rejects(other.acquire(domid, 'save'), hasCode('LOCKED', held));
  await assert.rejects(other.destroy(domid), hasCode('LOCKED', held));
  await lease.release();
  await lease.release();
  const second = await other.acquire(domid, 'save');
  await assert.rejects(host.acquire(domid, 'digest'), hasCode('LOCKED', /save/));
  await other.destroy(domid);
  await second.release();
  assert.deepEqual(await host.list(), []);
});

test('a lease works on the connection that took it only', async (t) => {
  const { host, domid } = await withGuest(t);
  const other = await openEmbeddedHost('test');
  t.after(() => other.close());
  const lease = await host.acquire(domid, 'save');
  await assert.rejects(other.holdPaused(lease), hasCode('INTERNAL'));
  await lease.release();
  await assert.rejects(host.holdPaused(lease), hasCode('DOMAIN_NOT_FOUND', /lease has ended/));
});

test('suspend goes through xenstore, resume in place lets the guest go on', async (t) => {
  const { host, domid } = await withGuest(t, 4);
  const control = `/local/domain/${domid}/control/shutdown`;
  const values: (string | null)[] = [];
  const unwatch = await host.xenstore.watch(control, () => {
    void host.xenstore.read(control).then((value) => values.push(value));
  });
  const events: DomainEvent[] = [];
  host.onEvent((event) => events.push(event));
  const lease = await host.acquire(domid, 'save');
  await host.suspend(lease, 5000);
  assert.equal((await host.find('web1')).shutdown, 'suspend');
  await assertStandsStill(host, domid);
  assert.equal(await host.xenstore.read(control), '');
  assert.ok(values.length >= 3, `requested and acknowledged: ${JSON.stringify(values)}`);
  const state = await host.readState(domid);
  assert.deepEqual(
    state.vcpus.map(({ id, basic }) => [id, basic.length]),
    [0, 1, 2, 3].map((id) => [id, 5168]),
  );
  assert.equal(state.sharedInfo.length, 4096);
  const { uuid } = await host.info(domid);
  assert.deepEqual(events, [{ type: 'shutdown', sequence: 1, domid, uuid, reason: 'suspend' }]);
  await host.resumeInPlace(lease);
  assert.equal((await host.find('web1')).shutdown, null);
  await assertRuns(host, domid, 1000);
  await assert.rejects(host.readState(domid), hasCode('DOMAIN_WRONG_STATE'));
  await unwatch();
  await lease.release();
  await assertRuns(host, domid, 1000);
});

test('a guest that does not answer is left running, the request withdrawn', async (t) => {
  const host = await startTestHost(t);
  const config = { program: 'counter', rate: 1000, deaf: true } as const;
  const domid = await host.create(guestSpec('deaf', config), { paused: false });
  const lease = await host.acquire(domid, 'save');
  const begun = performance.now();
  const untouched = { code: 'SUSPEND_TIMEOUT', guest: 'untouched', exitCode: 20 };
  await assert.rejects(host.suspend(lease, 200), { ...untouched, message: /200 ms/u });
  assert.ok(performance.now() - begun < 2000);
  assert.equal(await host.xenstore.read(`/local/domain/${domid}/control/shutdown`), '');
  assert.equal((await host.find('deaf')).shutdown, null);
  await assertRuns(host, domid, 1000);
  const again = assert.rejects(host.suspend(lease, 60_000), hasCode('CANCELLED'));
  await lease.release();
  await again;
  await assertRuns(host, domid, 1000);
});

test('a paused guest cannot be asked to suspend, one that suspends unasked is resumed', async (t) => {
  const { host, domid } = await withGuest(t);
  await host.pause(domid);
  const lease = await host.acquire(domid, 'save');
  await assert.rejects(host.suspend(lease, 1000), hasCode('DOMAIN_WRONG_STATE', /paused/));
  await lease.release();
  await host.unpause(domid);
  await host.xenstore.write(`/local/domain/${domid}/control/shutdown`, 'suspend');
  await until('the guest takes the request', 2000, async () => {
    return (await host.xenstore.read(`/local/domain/${domid}/control/shutdown`)) === '';
  });
  await until('it goes on', 1000, async () => (await host.find('web1')).shutdown === null);
  await assertRuns(host, domid, 1000);
});

test('a crashed guest stays to be looked at, one that powers off is removed', async (t) => {
  const host = await startTestHost(t);
  const crasher = { program: 'crasher', crashAt: 50, rate: 1000 } as const;
  await host.create(guestSpec('preserved', crasher), { paused: false });
  await until('it crashes', 3000, async () => (await host.find('preserved')).shutdown === 'crash');
  await host.create(guestSpec('removed', { ...crasher, onCrash: 'destroy' }), { paused: false });
  const names = async () => (await host.list()).map(({ name }) => name);
  await until('it is removed', 3000, async () => !(await names()).includes('removed'));
  const domid = await host.create(guestSpec('off'), { paused: false });
  const { uuid } = await host.info(domid);
  const events: DomainEvent[] = [];
  const released = new Promise<void>((resolve) =>
    host.onEvent((event) => {
      events.push(event);
      if (event.type === 'released') resolve();
    }),
  );
  await host.xenstore.write(`/local/domain/${domid}/control/shutdown`, 'poweroff');
  await released;
  const what = { domid, uuid, reason: 'poweroff' };
  assert.deepEqual(events, [
    { type: 'shutdown', sequence: 1, ...what },
    { type: 'released', sequence: 2, ...what },
  ]);
  assert.deepEqual(await names(), ['preserved']);
  assert.deepEqual(await host.xenstore.list('/local/domain'), ['1']);
});

test('the nodes of a domain are those that libxl writes', async (t) => {
  const { host, domid } = await withGuest(t, 2);
  const home = `/local/domain/${domid}`;
  const { uuid } = await host.find('web1');
  const read = (path: string) => host.xenstore.read(path);
  assert.deepEqual(
    await Promise.all(
      ['name', 'domid', 'vm', 'memory/target', 'memory/static-max'].map((node) => read(`${home}/${node}`)),
    ),
    ['web1', String(domid), `/vm/${uuid}`, '8192', '8192'],
  );
  assert.deepEqual(await host.xenstore.list(`${home}/cpu`), ['0', '1']);
  assert.equal(await read(`/vm/${uuid}/name`), 'web1');
  for (const ring of ['store', 'console'])
    for (const node of ['port', 'ring-ref'])
      assert.match((await read(`${home}/${ring}/${node}`)) ?? '', /^[1-9]\d*$/);
  await host.destroy(domid);
  assert.equal(await read(home), null);
  assert.equal(await read(`/vm/${uuid}`), null);
});

test('transactions of two tools on the same node both take effect', async (t) => {
  const host = await startTestHost(t);
  const other = await openEmbeddedHost('test');
  t.after(() => other.close());
  await host.xenstore.write('/tool/count', '0');
  const add = (store: EmbeddedHost['xenstore']) =>
    store.transaction(async (tx) =>
      tx.write('/tool/count', String(Number(await tx.read('/tool/count')) + 1)),
    );
  for (let i = 0; i < 10; i++) await Promise.all([add(host.xenstore), add(other.xenstore)]);
  assert.equal(await host.xenstore.read('/tool/count'), '20');
});

for (const hold of ['lease', 'pause', 'suspend', 'snapshot', 'tracker', 'everything']) {
  test(`a tool killed while it holds a ${hold} leaves the guest running and nothing behind`, async (t) => {
    const { host, domid } = await withGuest(t, 2);
    const free = (await host.status()).freeBytes;
    const tool = await startTool(t, [hold, 'web1']);
    const held = await host.status();
    assert.deepEqual(held.leases, [{ domid, operation: 'save', pid: tool.pid }]);
    if (['pause', 'suspend', 'everything'].includes(hold)) await assertStandsStill(host, domid);
    await tool.kill();
    await assertRuns(host, domid, 1000);
    await until('the lease ends', 1000, async () => (await host.status()).leases.length === 0);
    const after = await host.status();
    assert.deepEqual(
      [after.snapshots, after.trackers, after.connections, after.quarantinedBytes],
      [0, 0, 1, 0],
    );
    const expected = { snapshot: [1, 0], tracker: [0, 1], everything: [1, 1] }[hold] ?? [0, 0];
    assert.deepEqual([held.snapshots, held.trackers], expected, 'it did hold it');
    assert.equal(after.freeBytes, free);
    const { paused, shutdown } = await host.find('web1');
    assert.deepEqual([paused, shutdown], [false, null]);
    const lease = await host.acquire(domid, 'checkpoint');
    const tracker = await host.tracker(lease);
    assert.ok((await tracker.peek()).length >= 8192 / 4 / 8);
    const snapshot = await host.snapshot(lease);
    await snapshot.release();
    await lease.release();
  });
}

test('a tool killed while it builds a domain leaves no domain, name, node or memory behind', async (t) => {
  const host = await startTestHost(t);
  const before = await host.status();
  const tool = await startTool(t, ['build']);
  const [half] = await host.list();
  assert.equal(half?.building, true);
  await assert.rejects(host.destroy(half.domid), hasCode('LOCKED', /restore/));
  await assert.rejects(host.unpause(half.domid), hasCode('DOMAIN_WRONG_STATE', /being built/));
  await tool.kill();
  await until('the half-built domain goes', 1000, async () => (await host.list()).length === 0);
  const after = await host.status();
  assert.deepEqual([after.leases, after.freeBytes], [[], before.freeBytes]);
  assert.deepEqual(await host.xenstore.list('/local/domain'), []);
  await host.create(guestSpec('half-built'), { paused: true });
});

test('digits are a domid, as for xl: no domain is given them for a name', async (t) => {
  const host = await startTestHost(t);
  const first = await host.create(guestSpec('web1'), { paused: true });
  const named = await host.create(guestSpec('web2'), { paused: true });
  for (const name of [String(first), (await host.info(first)).uuid])
    await assert.rejects(host.create(guestSpec(name), { paused: true }), hasCode('CONFIG_INVALID'));
  assert.equal((await host.find(String(first))).name, 'web1');
  assert.equal((await host.find(`0${first}`)).domid, first);
  assert.equal((await host.find(String(named))).name, 'web2');
  const { uuid } = await host.info(named);
  assert.equal((await host.find(uuid.toUpperCase())).domid, named);
  assert.deepEqual(await host.info(first), await host.find('web1'));
  await host.destroy(first);
  await assert.rejects(host.find(String(first)), hasCode('DOMAIN_NOT_FOUND'));
  await assert.rejects(host.info(first), hasCode('DOMAIN_NOT_FOUND'));
});

test('who listens is told when the host dies, and not when it is he who leaves', async (t) => {
  const host = await startTestHost(t);
  const other = await openEmbeddedHost('test');
  const events: DomainEvent[] = [];
  other.onEvent(() => assert.fail('it was closed'));
  await other.close();
  host.onEvent((event) => events.push(event));
  process.kill((await host.status()).pid, 'SIGKILL');
  await until('the end is told', 5000, () => events.length > 0);
  assert.deepEqual(events, [{ type: 'lost', sequence: 1 }]);
});

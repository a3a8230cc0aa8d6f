import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DormouseError, type ErrorCode } from '../../src/errors.js';
import type { Builder, Lease, Snapshot, Tracker } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';

/** What may be refused in a schedule that knows nothing of what the others do. */
const refusals: readonly ErrorCode[] = [
  'DOMAIN_NOT_FOUND',
  'DOMAIN_EXISTS',
  'DOMAIN_WRONG_STATE',
  'LOCKED',
  'SUSPEND_TIMEOUT',
  'CANCELLED',
  'NO_MEMORY',
  'RESTORE_FAILED',
];

/** A tool: what it holds, and its next connection once it is killed. */
interface Tool {
  host: EmbeddedHost;
  lease: Lease | undefined;
  builder: Builder | undefined;
  snapshot: Snapshot | undefined;
  tracker: Tracker | undefined;
}

const freshTool = async (): Promise<Tool> => ({
  host: await openEmbeddedHost('test'),
  lease: undefined,
  builder: undefined,
  snapshot: undefined,
  tracker: undefined,
});

const names = ['a', 'b', 'c'];
type Act = (tool: Tool, name: string) => Promise<unknown>;

const domidOf = async ({ host }: Tool, name: string): Promise<number> => (await host.find(name)).domid;
const withLease = (act: (tool: Tool, lease: Lease) => Promise<unknown>): Act => {
  return (tool) => (tool.lease ? act(tool, tool.lease) : Promise.resolve());
};

/** A domain that ends between the two calls leaves what was written for it behind, as on real Xen. */
async function request(tool: Tool, name: string, what: string): Promise<void> {
  const domid = await domidOf(tool, name);
  const home = `/local/domain/${domid}`;
  await tool.host.xenstore.write(`${home}/control/shutdown`, what);
  if (!(await tool.host.list()).some((info) => info.domid === domid)) await tool.host.xenstore.remove(home);
}

const acts = {
  create: ({ host }, name) =>
    host.create(guestSpec(name, { program: 'counter', rate: 2000 }, { memoryMib: 2 }), { paused: false }),
  deaf: ({ host }, name) =>
    host.create(guestSpec(name, { program: 'writer', rate: 2000, deaf: true }, { memoryMib: 2 }), {
      paused: false,
    }),
  destroy: async (tool, name) => tool.host.destroy(await domidOf(tool, name)),
  pause: async (tool, name) => tool.host.pause(await domidOf(tool, name)),
  unpause: async (tool, name) => tool.host.unpause(await domidOf(tool, name)),
  acquire: async (tool, name) => {
    const lease = await tool.host.acquire(await domidOf(tool, name), 'save');
    await tool.lease?.release();
    tool.lease = lease;
  },
  release: withLease((_tool, lease) => lease.release()),
  suspend: withLease(({ host }, lease) => host.suspend(lease, 30)),
  suspendLater: withLease(({ host }, lease) => {
    host.suspend(lease, 30).catch(() => undefined);
    return Promise.resolve();
  }),
  resume: withLease(({ host }, lease) => host.resumeInPlace(lease)),
  hold: withLease(({ host }, lease) => host.holdPaused(lease)),
  unhold: withLease(({ host }, lease) => host.releasePaused(lease)),
  snapshot: withLease(async (tool, lease) => (tool.snapshot = await tool.host.snapshot(lease))),
  drop: ({ snapshot }) => snapshot?.release() ?? Promise.resolve(),
  track: withLease(async (tool, lease) => (tool.tracker = await tool.host.tracker(lease))),
  readTrack: ({ tracker }) => tracker?.readAndClear() ?? Promise.resolve(),
  offTrack: ({ tracker }) => tracker?.off() ?? Promise.resolve(),
  build: async (tool, name) => {
    const { lease, builder } = await tool.host.build(guestSpec(name, { program: 'idle' }, { memoryMib: 2 }));
    tool.builder = builder;
    await tool.lease?.release();
    tool.lease = lease;
    await builder.setGeometry({ nrPfns: 512, guestWidth: 8, p2mFrames: [], p2mGeneration: 0 });
    await builder.populate([[0, 300]]);
  },
  populate: ({ builder }) => builder?.populate([[300, 10]]) ?? Promise.resolve(),
  shutdown: (tool, name) => request(tool, name, 'suspend'),
  poweroff: (tool, name) => request(tool, name, 'poweroff'),
} satisfies Record<string, Act>;
const actNames = Object.keys(acts) as (keyof typeof acts)[];

async function attempt(act: Act, tool: Tool, name: string): Promise<void> {
  try {
    await act(tool, name);
  } catch (thrown) {
    assert.ok(thrown instanceof DormouseError && refusals.includes(thrown.code), String(thrown));
  }
}

/** After every tool is gone: no lease, no snapshot, and each guest that no user paused runs. */
async function assertNothingHeld(observer: EmbeddedHost): Promise<void> {
  await until('the leases end', 2000, async () => {
    const { leases, connections } = await observer.status();
    return leases.length === 0 && connections === 1;
  });
  const { snapshots, trackers } = await observer.status();
  assert.deepEqual([snapshots, trackers], [0, 0]);
  for (const { domid, name } of await observer.list()) {
    await observer.unpause(domid).catch(() => undefined);
    await until(`'${name}' runs or is gone`, 2000, async () => {
      const [info] = (await observer.list()).filter((each) => each.domid === domid);
      return !info || (!info.building && !info.paused && info.shutdown === null);
    });
  }
}

test('whatever tools do and wherever they die, guests are given back and nothing leaks', async (t) => {
  const observer = await startTestHost(t, { memoryMib: 64 });
  const before = await observer.status();
  const step = fc.record({
    tool: fc.nat(2),
    act: fc.constantFrom(...actNames, 'acquire', 'create', 'snapshot', 'suspend', 'die'),
    name: fc.constantFrom(...names),
  });
  const schedule = fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), async (steps) => {
    const tools = await Promise.all([freshTool(), freshTool(), freshTool()]);
    for (const name of names) await attempt(acts.create, tools[0], name);
    for (const { tool: index, act, name } of steps) {
      const tool = tools[index] ?? tools[0];
      if (act === 'die') {
        await tool.host.close();
        Object.assign(tool, await freshTool());
      } else await attempt(acts[act], tool, name);
    }
    for (const { host } of tools) await host.close();
    await assertNothingHeld(observer);
    for (const { domid } of await observer.list()) await observer.destroy(domid).catch(() => undefined);
    const after = await observer.status();
    assert.deepEqual([after.guests, after.freeBytes, after.quarantinedBytes], [[], before.freeBytes, 0]);
    assert.deepEqual(await observer.xenstore.list('/local/domain'), []);
  });
  const outcome = await fc.check(schedule, { numRuns: 60, endOnFailure: true });
  t.diagnostic(`seed ${outcome.seed}, ${outcome.numRuns} schedules`);
  const why = outcome.errorInstance as Error | null;
  assert.ok(!outcome.failed, `${fc.defaultReportMessage(outcome)}\n${why?.stack ?? ''}`);
});

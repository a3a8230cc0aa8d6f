/** Events of domains on Xen: what two lists of them tell, and what is looked for again. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DomainEvent } from '../../src/host/contract.js';
import { domainFlag } from '../../src/host/xen/domain_flags.js';
import { changesBetween, watchEvents } from '../../src/host/xen/events.js';
import type { NativeDomain } from '../../src/host/xen/native.js';
import { until } from '../support/hosts.js';

const { dying, shutdown, running } = domainFlag;
const down = (reason: number): number => shutdown | (reason << 16);
const [poweroff, suspend, crash] = [down(0), down(2), down(3)];

function domain(domid: number, flags = 0, over: Partial<NativeDomain> = {}): NativeDomain {
  const sizes = { pages: 0, outstandingPages: 0, maxPages: 0, vcpus: 1 };
  return { domid, flags, emulation: 0, handle: Buffer.alloc(16, domid), ...sizes, cpuTimeNs: 1000, ...over };
}
const uuidOf = (domid: number): string => {
  const byte = `0${domid}`;
  return [4, 2, 2, 2, 6].map((bytes) => byte.repeat(bytes)).join('-');
};
const listOf = (...domains: NativeDomain[]): Map<number, NativeDomain> =>
  new Map(domains.map((one) => [one.domid, one]));
/** Type, domid and reason of each change. */
const changes = (before: NativeDomain[], after: NativeDomain[]) =>
  changesBetween(listOf(...before), listOf(...after)).map(({ type, domid, reason }) => [type, domid, reason]);

test('domains that come, shut down and go, with uuid and reason', () => {
  const after = [domain(2, suspend), domain(3, crash), domain(4)];
  assert.deepEqual(changesBetween(listOf(domain(1), domain(2), domain(3, crash)), listOf(...after)), [
    { type: 'released', domid: 1, uuid: uuidOf(1), reason: null },
    { type: 'shutdown', domid: 2, uuid: uuidOf(2), reason: 'suspend' },
    { type: 'created', domid: 4, uuid: uuidOf(4), reason: null },
  ]);
  assert.deepEqual(changes([domain(1, poweroff)], []), [['released', 1, 'poweroff']]);
  assert.deepEqual(changes([], [domain(1, crash)]), [
    ['created', 1, 'crash'],
    ['shutdown', 1, 'crash'],
  ]);
});

test('a zombie, a crash in the place of a suspension, a second suspension, another domain of that id', () => {
  assert.deepEqual(changes([domain(1)], [domain(1, dying)]), [['dying', 1, null]]);
  assert.deepEqual(changes([domain(1, dying)], [domain(1, dying)]), []);
  assert.deepEqual(changes([domain(1, suspend)], [domain(1, crash)]), [['shutdown', 1, 'crash']]);
  assert.deepEqual(changes([domain(1, suspend)], [domain(1, suspend)]), []);
  assert.deepEqual(changes([domain(1, suspend)], [domain(1, suspend, { cpuTimeNs: 2000 })]), [
    ['shutdown', 1, 'suspend'],
  ]);
  assert.deepEqual(changes([domain(1, suspend)], [domain(1)]), [], 'resumed');
  const other = domain(1, 0, { handle: Buffer.alloc(16, 9) });
  assert.deepEqual(changes([domain(1, suspend)], [other]), [
    ['released', 1, 'suspend'],
    ['created', 1, null],
  ]);
});

/** A watcher over lists that the test sets; `announce` is what xenstored does. */
function scene(t: TestContext, first: NativeDomain[]) {
  const state = { domains: first, failing: false, looks: 0 };
  const watches: ((path: string) => void)[] = [];
  const events: DomainEvent[] = [];
  const xenstore = {
    watch: (_: string, changed: (path: string) => void) => {
      watches.push(changed);
      return Promise.resolve(() => Promise.resolve());
    },
  };
  const list = (): NativeDomain[] => {
    state.looks++;
    if (state.failing) throw new Error('no answer');
    return state.domains;
  };
  const stop = watchEvents(xenstore, list, (event) => events.push(event));
  t.after(stop);
  const seen = () => events.map((event) => [event.sequence, event.type, 'reason' in event && event.reason]);
  return { state, seen, stop, announce: () => watches.forEach((changed) => changed('@releaseDomain')) };
}

test('events are numbered, and a list that cannot be had is told once', (t) => {
  const { state, seen, announce, stop } = scene(t, [domain(1)]);
  announce();
  assert.deepEqual(seen(), []);
  state.failing = true;
  announce();
  announce();
  state.failing = false;
  state.domains = [domain(1, crash)];
  announce();
  const wanted = [
    [1, 'lost', false],
    [2, 'shutdown', 'crash'],
  ];
  assert.deepEqual(seen(), wanted);
  stop();
  state.domains = [];
  announce();
  assert.deepEqual(seen(), wanted);
});

test('a shutdown is told once no vCPU runs any more, the end of a zombie without an announcement', async (t) => {
  const { state, seen, announce } = scene(t, [domain(1), domain(2)]);
  state.domains = [domain(1, suspend | running), domain(2, dying)];
  announce();
  assert.deepEqual(seen(), [[1, 'dying', null]]);
  state.domains = [domain(1, suspend, { cpuTimeNs: 1500 }), domain(2, dying)];
  await until('the shutdown is told', 5000, () => seen().length === 2);
  state.domains = [domain(1, suspend, { cpuTimeNs: 1500 })];
  await until('the end is told', 10_000, () => seen().length === 3);
  assert.deepEqual(seen().slice(1), [
    [2, 'shutdown', 'suspend'],
    [3, 'released', null],
  ]);
  const { looks } = state;
  await sleep(100);
  assert.equal(state.looks, looks, 'nothing is under way');
});

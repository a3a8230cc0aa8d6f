/** Devices taken off a domain and put back, over backends that answer as Linux's do (public/io/xenbus.h), or do not. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import type { Xenstore } from '../../src/host/contract.js';
import {
  changedDevices,
  describeDevices,
  deviceObstacles,
  findDevices,
  putBack,
  takeOff,
} from '../../src/host/xen/devices.js';
import { asDormouseError } from '../../src/errors.js';

const answers: Readonly<Record<string, string>> = { '5': '5', '6': '6', '1': '2', '4': '4' };

/** What was written to frontends, in order; `deaf` backends answer nothing. */
class Machine {
  readonly nodes = new Map<string, string>();
  readonly written: string[] = [];
  deaf = '';

  device(kind: string, id: number, more: Readonly<Record<string, string>> = {}): this {
    const frontend = `/local/domain/7/device/${kind}/${id}`;
    const backend = more['backend'] ?? `/local/domain/0/backend/${kind}/7/${id}`;
    this.nodes.set(`${frontend}/backend`, backend);
    this.nodes.set(`${frontend}/state`, '4');
    this.nodes.set(`${frontend}/ring-ref`, more['ring-ref'] ?? '8');
    this.nodes.set(`${backend}/state`, '4');
    if (more['mode'] !== undefined) this.nodes.set(`${backend}/mode`, more['mode']);
    if (more['state'] !== undefined) this.nodes.set(`${frontend}/state`, more['state']);
    return this;
  }

  write(path: string, value: string): void {
    this.written.push(`${path.split('/').slice(5).join('/')}=${value}`);
    this.nodes.set(path, value);
    const backend = this.nodes.get(path.replace(/state$/, 'backend')) ?? '';
    const answer = answers[value];
    if (answer !== undefined && (this.deaf === '' || !backend.includes(this.deaf)))
      this.nodes.set(`${backend}/state`, answer);
  }

  get store(): Xenstore {
    const list = (path: string): string[] => {
      const below = [...this.nodes.keys()].filter((node) => node.startsWith(`${path}/`));
      return [...new Set(below.map((node) => node.slice(path.length + 1).split('/')[0] ?? ''))];
    };
    const part = {
      read: (path: string) => Promise.resolve(this.nodes.get(path) ?? null),
      write: (path: string, value: string) => {
        this.write(path, value);
        return Promise.resolve();
      },
      list: (path: string) => Promise.resolve(list(path)),
    };
    return part as unknown as Xenstore;
  }
}

const found = (machine: Machine): ReturnType<typeof findDevices> => findDevices(machine.store, 7);

test('a disk and a card are taken off and put back by the states that their drivers would write', async () => {
  const machine = new Machine().device('vbd', 51712, { mode: 'w' }).device('vif', 0);
  machine.nodes.set('/local/domain/7/device/suspend/event-channel', '5');
  const devices = await found(machine);
  assert.deepEqual(
    devices.map(({ name }) => name),
    ['vbd 51712', 'vif 0'],
  );
  await takeOff(machine.store, devices);
  await putBack(machine.store, devices);
  const of = (kind: string): string[] => machine.written.filter((line) => line.startsWith(kind));
  assert.deepEqual(
    of('vbd'),
    ['5', '6', '1', '4'].map((state) => `vbd/51712/state=${state}`),
  );
  assert.deepEqual(
    of('vif'),
    ['5', '6', '1', '4'].map((state) => `vif/0/state=${state}`),
  );
  assert.equal(machine.nodes.get('/local/domain/0/backend/vif/7/0/state'), '4');
});

test('who was left in the middle is taken off, and put back, from where it is', async () => {
  for (const [frontend, backend] of [
    ['5', '5'],
    ['6', '6'],
    ['1', '2'],
    ['4', '4'],
  ] as const) {
    const machine = new Machine().device('vif', 0, { state: frontend });
    machine.nodes.set('/local/domain/0/backend/vif/7/0/state', backend);
    const devices = await found(machine);
    await takeOff(machine.store, devices);
    assert.equal(machine.nodes.get('/local/domain/0/backend/vif/7/0/state'), '6');
    await putBack(machine.store, devices);
    assert.equal(machine.nodes.get('/local/domain/7/device/vif/0/state'), '4');
    assert.equal(machine.nodes.get('/local/domain/0/backend/vif/7/0/state'), '4');
  }
});

test('a backend that never answers is named, in bounded time', async (t: TestContext) => {
  const machine = new Machine().device('vbd', 51712).device('vif', 0);
  machine.deaf = '/vif/';
  const devices = await found(machine);
  let nowMs = 0;
  t.mock.method(performance, 'now', () => (nowMs += 1000));
  const work = takeOff(machine.store, devices);
  await assert.rejects(work, (error: Error) => {
    assert.equal(asDormouseError(error).code, 'HOST_UNAVAILABLE');
    assert.match(error.message, /the backend of vif 0 stays in state 4 instead of 5/);
    return true;
  });
  assert.equal(
    machine.nodes.get('/local/domain/0/backend/vbd/7/51712/state'),
    '6',
    'the other was waited for',
  );
});

test('what cannot be taken off, or must not be without being told, stands against it', async () => {
  const says = async (machine: Machine, keepDisks = false): Promise<string[]> =>
    (await deviceObstacles(machine.store, await found(machine), keepDisks)).map(({ message }) => message);
  assert.deepEqual(await says(new Machine().device('vbd', 1, { mode: 'r' }).device('vif', 0)), []);
  const disk = new Machine().device('vbd', 51712, { mode: 'w' });
  assert.match((await says(disk)).join(), /^vbd 51712 is a disk that is written to/);
  assert.deepEqual(await says(disk, true), []);
  assert.match((await says(new Machine().device('vkbd', 0))).join(), /^vkbd 0 cannot be taken off/);
  const qemu = new Machine().device('vbd', 1, { backend: '/local/domain/0/backend/qdisk/7/1' });
  assert.match((await says(qemu, true)).join(), /its backend is .*qdisk/);
  const driver = new Machine().device('vif', 0, { backend: '/local/domain/3/backend/vif/7/0' });
  assert.match((await says(driver)).join(), /domain\/3/);
  assert.match(
    (await says(new Machine().device('vif', 0, { state: '1' }))).join(),
    /not connected \(state 1\)/,
  );
});

test('devices that came, went or were connected anew are told apart', async () => {
  const then = describeDevices(await found(new Machine().device('vbd', 1).device('vif', 0)));
  const now = async (machine: Machine): Promise<string | null> => changedDevices(then, await found(machine));
  assert.equal(await now(new Machine().device('vbd', 1).device('vif', 0, { state: '6' })), null);
  assert.equal(await now(new Machine().device('vbd', 1)), 'vif 0 is gone');
  assert.equal(await now(new Machine().device('vbd', 1).device('vif', 0).device('vif', 1)), 'vif 1 is new');
  const anew = new Machine().device('vbd', 1, { 'ring-ref': '9' }).device('vif', 0);
  assert.equal(await now(anew), 'vbd 1 was connected anew');
  assert.equal(changedDevices('not json', []), null);
  assert.equal(await now(new Machine()), 'vbd 1 is gone, vif 0 is gone');
});

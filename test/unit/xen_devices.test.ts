/** Devices taken off a domain and put back, over backends that answer as Linux's do (public/io/xenbus.h), or do not. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import {
  changedDevices,
  describeDevices,
  deviceObstacles,
  findDevices,
  putBack,
  ringPages,
  takeOff,
} from '../../src/host/xen/devices.js';
import { asDormouseError } from '../../src/errors.js';
import { DeviceMachine as Machine } from '../support/device_machine.js';

const found = (machine: Machine): ReturnType<typeof findDevices> => findDevices(machine.store, 7);

test('a disk and a card are taken off and put back by the states that their drivers would write', async () => {
  const machine = new Machine().device('vbd', 51712, { mode: 'w' }).device('vif', 0);
  machine.nodes.set('/local/domain/7/device/suspend/event-channel', '5');
  const devices = await found(machine);
  assert.deepEqual(
    devices.map(({ name }) => name),
    ['vbd 51712', 'vif 0'],
  );
  await takeOff(machine.of, devices);
  await putBack(machine.of, devices);
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
    await takeOff(machine.of, devices);
    assert.equal(machine.nodes.get('/local/domain/0/backend/vif/7/0/state'), '6');
    await putBack(machine.of, devices);
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
  const work = takeOff(machine.of, devices);
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
    (await deviceObstacles(machine.of, await found(machine), { keepDisks, leftMidway: false })).map(
      ({ message }) => message,
    );
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

test('what the guest writes of its devices is not believed', async () => {
  const machine = new Machine().device('vif', 0);
  machine.nodes.set('/local/domain/7/device/vif/0/backend', '/local/domain/0/backend/vif/8/0');
  machine.nodes.set('/local/domain/7/device/vif/1/backend', '/local/domain/0/backend/vif/8/1');
  const devices = await found(machine);
  assert.deepEqual(
    devices.map(({ backend }) => backend),
    ['/local/domain/0/backend/vif/7/0'],
  );
  const others = new Machine().device('vif', 0, { backend: '/local/domain/0/backend/vif/8/0' });
  const asked = { keepDisks: false, leftMidway: false };
  const [obstacle] = await deviceObstacles(others.of, await found(others), asked);
  assert.match(obstacle?.message ?? '', /its backend is .*vif\/8/);
});

test('pages of rings are named by their grants, and the first one of each ring of a disk', async () => {
  const machine = new Machine().device('vif', 0).device('vbd', 51712);
  const put = (path: string, value: string): void => {
    machine.nodes.set(`/local/domain/7/device/${path}`, value);
  };
  for (const [name, grant] of Object.entries({ tx: '10', rx: '11' }))
    put(`vif/0/queue-0/${name}-ring-ref`, grant);
  for (const queue of [0, 1])
    for (const page of [0, 1, 10])
      put(`vbd/51712/queue-${queue}/ring-ref${page}`, String(100 * (queue + 1) + page));
  put('vbd/51712/queue-1/ring-page-order', '1');
  put('vif/0/odd-ring-ref', 'x'.repeat(50));
  const words = [...ringPages(await found(machine))].map((word) => [
    Number(word & 0xffff_ffffn),
    word >> 32n === 1n,
  ]);
  assert.deepEqual(words, [
    ...[
      [100, true],
      [101, false],
      [110, false],
      [200, true],
      [201, false],
      [210, false],
    ],
    // As the machine has it.
    ...[
      [8, true],
      [11, false],
      [10, false],
      [8, false],
    ],
  ]);
});

test('a guest that fills its own nodes is told off, in bounded time and space', async () => {
  const many = new Machine().device('vif', 0);
  for (let n = 0; n < 300; n++) many.nodes.set(`/local/domain/7/device/vif/0/x${n}`, 'y');
  await assert.rejects(found(many), /more nodes than a driver writes/);
  const deep = new Machine().device('vif', 0);
  deep.nodes.set('/local/domain/7/device/vif/0/a/b/c/d/e/f', 'y');
  await assert.rejects(found(deep), /more nodes than a driver writes/);
  const odd = new Machine().device('vif', 0, { 'ring-ref': `\0\n${'x'.repeat(4000)}` });
  assert.ok(describeDevices(await found(odd)).length < 300);
});

test('devices of a domain that is destroyed meanwhile are not made again', async () => {
  for (const work of [takeOff, putBack]) {
    const machine = new Machine().device('vif', 0, { state: '6' }).device('vbd', 51712, { state: '6' });
    machine.nodes.set('/local/domain/0/backend/vif/7/0/state', '2');
    const devices = await found(machine);
    machine.destroy();
    await assert.rejects(work(machine.of, devices), { code: 'DOMAIN_NOT_FOUND' });
    assert.deepEqual([...machine.nodes], []);
  }
});

/** The nodes of a device follow its two ends, through the states that a watcher expects between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { disksInUse } from '../../src/host/embedded/block_devices.js';
import { Devices, type DomainDevices } from '../../src/host/embedded/devices.js';
import type { HypervisorApi, MachineId, NativeDisk } from '../../src/host/embedded/hypervisor.js';
import { XenstoreTree } from '../../src/host/embedded/xenstore.js';

const disk = {
  name: 'xvda',
  path: '/disk',
  kind: 'file',
  writable: true,
  identity: 'file 1:2',
  port: 40,
} as const;

class Stage {
  readonly store = new XenstoreTree();
  readonly written: string[] = [];
  #now: NativeDisk = { frontend: 1, backend: 2, ringRefs: [0, 0], sectors: 64 };
  readonly #devices: Devices;
  readonly #domain: DomainDevices;

  constructor(device: string) {
    this.#domain = {
      domid: 7,
      disks: device.startsWith('vbd') ? [disk] : [],
      networks: device.startsWith('vif') ? [{ mac: Buffer.from('00163e010203', 'hex'), port: 41 }] : [],
    };
    const hv = {
      addDisk: () => undefined,
      addNetwork: () => undefined,
      disks: () => [this.#now],
      networks: () => [this.#now],
    } as unknown as HypervisorApi;
    this.#devices = new Devices(hv, 1 as MachineId, this.store);
    this.#devices.add(this.#domain);
    for (const [end, home] of [
      ['front', `/local/domain/7/device/${device}`],
      ['back', `/local/domain/0/backend/${device.replace('/', '/7/')}`],
    ] as const)
      this.store.watch(`${home}/state`, (path) =>
        this.written.push(`${end} ${this.store.read(path) ?? 'none'}`),
      );
    this.written.length = 0;
  }

  /** What is written to either state when the device is found there. */
  found(frontend: number, backend: number): string[] {
    this.#now = { frontend, backend, ringRefs: frontend === 4 ? [8, 9] : [0, 0], sectors: 64 };
    this.#devices.publish(this.#domain);
    return this.written.splice(0);
  }
}

function meetsAndCloses(stage: Stage): void {
  assert.deepEqual(stage.found(1, 2), ['back 2'], 'waiting for a frontend');
  assert.deepEqual(stage.found(4, 4), ['front 3', 'back 4', 'front 4'], 'a frontend came');
  assert.deepEqual(stage.found(4, 4), [], 'nothing new');
  assert.deepEqual(stage.found(4, 6), ['back 6'], 'its backend is away');
  assert.deepEqual(stage.found(4, 4), ['back 2', 'back 4'], 'and back: the frontend saw nothing');
  assert.deepEqual(stage.found(5, 5), ['back 5', 'front 5'], 'the guest closes it');
  assert.deepEqual(stage.found(6, 6), ['back 6', 'front 6'], 'closed');
  assert.deepEqual(stage.found(4, 4), ['back 2', 'front 3', 'back 4', 'front 4'], 'gone back to before');
}

test('the ends of a disk meet, close, and meet again as Xen has it', () => {
  const stage = new Stage('vbd/51712');
  meetsAndCloses(stage);
  const front = '/local/domain/7/device/vbd/51712';
  assert.deepEqual(
    ['event-channel', 'ring-ref', 'virtual-device'].map((node) => stage.store.read(`${front}/${node}`)),
    ['40', '8', '51712'],
  );
});

test('so do those of a network interface', () => {
  const stage = new Stage('vif/0');
  meetsAndCloses(stage);
  const front = '/local/domain/7/device/vif/0';
  assert.deepEqual(
    ['event-channel', 'tx-ring-ref', 'rx-ring-ref', 'mac', 'handle', 'request-rx-copy'].map((node) =>
      stage.store.read(`${front}/${node}`),
    ),
    ['41', '8', '9', '00:16:3e:01:02:03', '0', '1'],
  );
  const back = '/local/domain/0/backend/vif/7/0';
  assert.deepEqual(
    ['frontend', 'mac', 'online', 'feature-rx-copy'].map((node) => stage.store.read(`${back}/${node}`)),
    [front, '00:16:3e:01:02:03', '1', '1'],
  );
});

test('two domains have one disk only where both read it', () => {
  const owner = { domid: 3, name: 'other', disks: [disk] };
  const reader = { domid: 4, name: 'reader', disks: [{ ...disk, writable: false }] };
  const codes = (writable: boolean, owners: Parameters<typeof disksInUse>[1]): string[] =>
    disksInUse([{ ...disk, writable }], owners).map(({ code }) => code);
  assert.deepEqual(codes(true, [owner]), ['DISK_IN_USE']);
  assert.deepEqual(codes(false, [owner]), ['DISK_IN_USE']);
  assert.deepEqual(codes(true, [reader]), ['DISK_IN_USE']);
  assert.deepEqual(codes(false, [reader]), []);
  assert.deepEqual(codes(true, []), []);
});

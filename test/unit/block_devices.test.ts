/** The nodes of a disk follow its two ends, through the states that a watcher expects between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockDevices, disksInUse } from '../../src/host/embedded/block_devices.js';
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
  #now: NativeDisk = { frontend: 1, backend: 2, ringRef: 0, sectors: 64 };
  readonly #blocks: BlockDevices;

  constructor() {
    const hv = { addDisk: () => undefined, disks: () => [this.#now] } as unknown as HypervisorApi;
    this.#blocks = new BlockDevices(hv, 1 as MachineId, this.store);
    this.#blocks.add(7, disk, 0);
    for (const [end, home] of [
      ['front', '/local/domain/7/device/vbd/51712'],
      ['back', '/local/domain/0/backend/vbd/7/51712'],
    ] as const)
      this.store.watch(`${home}/state`, (path) =>
        this.written.push(`${end} ${this.store.read(path) ?? 'none'}`),
      );
    this.written.length = 0;
  }

  /** What is written to either state when the device is found there. */
  found(frontend: number, backend: number): string[] {
    this.#now = { frontend, backend, ringRef: frontend === 4 ? 8 : 0, sectors: 64 };
    this.#blocks.publish(7, [disk]);
    return this.written.splice(0);
  }
}

test('the ends meet, close, and meet again as Xen has it', () => {
  const stage = new Stage();
  assert.deepEqual(stage.found(1, 2), ['back 2'], 'waiting for a frontend');
  assert.deepEqual(stage.found(4, 4), ['front 3', 'back 4', 'front 4'], 'a frontend came');
  assert.equal(stage.store.read('/local/domain/7/device/vbd/51712/event-channel'), '40');
  assert.deepEqual(stage.found(4, 4), [], 'nothing new');
  assert.deepEqual(stage.found(4, 6), ['back 6'], 'its backend is away');
  assert.deepEqual(stage.found(4, 4), ['back 2', 'back 4'], 'and back: the frontend saw nothing');
  assert.deepEqual(stage.found(5, 5), ['back 5', 'front 5'], 'the guest closes it');
  assert.deepEqual(stage.found(6, 6), ['back 6', 'front 6'], 'closed');
  assert.deepEqual(stage.found(4, 4), ['back 2', 'front 3', 'back 4', 'front 4'], 'gone back to before');
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

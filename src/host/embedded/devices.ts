/** The devices of domains on this host: what they are given, and when their backends come and go. */
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import type { DomainSpec } from '../contract.js';
import { addDiskNodes, type AttachedDisk, lookAtDisk, publishDisk } from './block_devices.js';
import { diskConfigs, networkCount } from './guest_config.js';
import type { BackendBehaviour, HypervisorApi, MachineId } from './hypervisor.js';
import { addNetworkNodes, type AttachedNetwork, macOf, publishNetwork } from './network_devices.js';
import type { XenstoreTree } from './xenstore.js';

/** A domain and its devices: of each kind the first, the second, ... */
export interface DomainDevices {
  readonly domid: number;
  readonly disks: readonly AttachedDisk[];
  readonly networks: readonly AttachedNetwork[];
}

/** Above all that a domain is given of ring ports in its life. */
export const firstDevicePort = 4000;
const firstNetworkPort = firstDevicePort + 10;

/** The devices that a domain's configuration names. CONFIG_INVALID. */
export function devicesOf({ config, uuid }: DomainSpec): Omit<DomainDevices, 'domid'> {
  return {
    disks: diskConfigs(config).map((disk, index) => ({
      ...lookAtDisk(disk, index),
      port: firstDevicePort + index,
    })),
    networks: Array.from({ length: networkCount(config) }, (_, index) => ({
      mac: macOf(uuid, index),
      port: firstNetworkPort + index,
    })),
  };
}

export const hasDevices = ({ disks, networks }: DomainDevices): boolean => disks.length + networks.length > 0;

/** How long backends may take to close before a domain is taken off its devices. */
const closeTimeoutMs = 3000;
const pollMs = 1;

export class Devices {
  readonly #hv: HypervisorApi;
  readonly #machine: MachineId;
  readonly #xenstore: XenstoreTree;

  constructor(hv: HypervisorApi, machine: MachineId, xenstore: XenstoreTree) {
    this.#hv = hv;
    this.#machine = machine;
    this.#xenstore = xenstore;
  }

  /** Gives a shell its devices, and writes what libxl writes of them. CONFIG_INVALID. */
  add({ domid, disks, networks }: DomainDevices): void {
    disks.forEach((disk, index) => {
      const { name, path, writable, port } = disk;
      native(() => this.#hv.addDisk(this.#machine, domid, { name, path, writable, port }));
      addDiskNodes(this.#xenstore, domid, disk, index);
    });
    networks.forEach((network, index) => {
      native(() => this.#hv.addNetwork(this.#machine, domid, network));
      addNetworkNodes(this.#xenstore, domid, network, index);
    });
  }

  /** Brings the nodes to where the devices are. */
  publish({ domid, disks, networks }: DomainDevices): void {
    if (disks.length > 0)
      native(() => this.#hv.disks(this.#machine, domid)).forEach((now, index) => {
        const disk = disks[index];
        if (disk) publishDisk(this.#xenstore, domid, disk, index, now);
      });
    if (networks.length > 0)
      native(() => this.#hv.networks(this.#machine, domid)).forEach((now, index) => {
        const network = networks[index];
        if (network) publishNetwork(this.#xenstore, domid, network, index, now);
      });
  }

  removed(domid: number): void {
    for (const kind of ['vbd', 'vif']) this.#xenstore.remove(`/local/domain/0/backend/${kind}/${domid}`);
  }

  /**
   * HOST_UNAVAILABLE if a backend does not close in time: then the devices are as they were. CANCELLED as soon as it is not
   * `wanted` any more.
   */
  async detach(domain: DomainDevices, wanted: () => boolean): Promise<void> {
    const { domid } = domain;
    const place = { domid };
    const deadline = performance.now() + closeTimeoutMs;
    while (!native(() => this.#hv.detachDevices(this.#machine, domid))) {
      if (performance.now() > deadline) {
        this.attach(domain);
        const text = `a device of domain ${domid} did not close within ${closeTimeoutMs} ms: its backend does not answer`;
        throw new DormouseError('HOST_UNAVAILABLE', text, { place });
      }
      await sleep(pollMs);
      if (!wanted()) throw new DormouseError('CANCELLED', `the lease on domain ${domid} ended`, { place });
    }
    this.publish(domain);
  }

  attach(domain: DomainDevices): void {
    native(() => this.#hv.attachDevices(this.#machine, domain.domid));
    this.publish(domain);
  }

  behave(domid: number, index: number, how: BackendBehaviour): void {
    native(() => this.#hv.setBackend(this.#machine, domid, index, how));
  }
}

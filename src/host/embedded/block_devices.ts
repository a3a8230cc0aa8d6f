/**
 * The toolstack's half of a domain's block devices: whose file a disk may be, and the nodes of both ends in xenstore, which
 * follow what the hypervisor's backends and the guest's drivers are at.
 */
import { realpathSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { DomainDisk, Obstacle } from '../contract.js';
import type { DiskConfig } from './guest_config.js';
import type { BackendBehaviour, HypervisorApi, MachineId, NativeDisk } from './hypervisor.js';
import type { XenstoreTree } from './xenstore.js';

/** A disk that a domain has: what is behind it, by which another name of the same is known. */
export interface AttachedDisk extends DomainDisk {
  readonly identity: string;
  readonly port: number;
}

/** As xenbus numbers them. */
const xenbus = { initialising: 1, initWait: 2, initialised: 3, connected: 4, closing: 5, closed: 6 } as const;

/** How long backends may take to close before a domain is taken off its disks. */
const closeTimeoutMs = 3000;
const pollMs = 1;

/** Virtual device numbers of xvda, xvdb, ... */
const vdevOf = (index: number): number => (202 << 8) | (index << 4);
const nameOf = (index: number): string => `xvd${String.fromCharCode(97 + index)}`;

/** What is behind a path. CONFIG_INVALID. */
export function lookAtDisk({ file, readOnly }: DiskConfig, index: number): Omit<AttachedDisk, 'port'> {
  try {
    const path = realpathSync(file);
    const stats = statSync(path, { bigint: true });
    const kind = stats.isBlockDevice() ? 'block' : stats.isFile() ? 'file' : null;
    if (kind === null)
      throw new DormouseError('CONFIG_INVALID', `the disk ${file} is no file or block device`);
    const identity = kind === 'block' ? `block ${stats.rdev}` : `file ${stats.dev}:${stats.ino}`;
    return { name: nameOf(index), path, kind, writable: !readOnly, identity };
  } catch (thrown) {
    if (thrown instanceof DormouseError) throw thrown;
    const { message } = asDormouseError(thrown);
    throw new DormouseError('CONFIG_INVALID', `the disk ${file}: ${message}`, { cause: thrown });
  }
}

/** Whose disks are looked at. */
interface Owner {
  readonly domid: number;
  readonly name: string;
  readonly disks: readonly AttachedDisk[];
}

/** DISK_IN_USE for each disk that another domain may write to, or that this one would while another reads it. */
export function disksInUse(
  wanted: readonly Omit<AttachedDisk, 'port'>[],
  owners: readonly Owner[],
): readonly Obstacle[] {
  return wanted.flatMap(({ identity, path, writable }, index) => {
    const twice = wanted.slice(0, index).some((other) => other.identity === identity);
    if (twice && writable)
      return [{ code: 'DISK_IN_USE' as const, message: `the disk ${path} is named twice` }];
    const owner = owners.find(({ disks }) =>
      disks.some((other) => other.identity === identity && (writable || other.writable)),
    );
    if (!owner) return [];
    const message = `the disk ${path} is in use by domain '${owner.name}' (id ${owner.domid})`;
    return [{ code: 'DISK_IN_USE' as const, message }];
  });
}

export class BlockDevices {
  readonly #hv: HypervisorApi;
  readonly #machine: MachineId;
  readonly #xenstore: XenstoreTree;

  constructor(hv: HypervisorApi, machine: MachineId, xenstore: XenstoreTree) {
    this.#hv = hv;
    this.#machine = machine;
    this.#xenstore = xenstore;
  }

  /** Gives a shell that disk, and writes what libxl writes of it. CONFIG_INVALID. */
  add(domid: number, disk: AttachedDisk, index: number): void {
    const { name, path, writable, port } = disk;
    native(() => this.#hv.addDisk(this.#machine, domid, { name, path, writable, port }));
    const [front, back] = [frontPath(domid, index), backPath(domid, index)];
    this.#writeAll(front, {
      backend: back,
      'backend-id': '0',
      'virtual-device': String(vdevOf(index)),
      'device-type': 'disk',
      state: String(xenbus.initialising),
    });
    this.#writeAll(back, {
      frontend: front,
      'frontend-id': String(domid),
      dev: name,
      params: path,
      mode: writable ? 'w' : 'r',
      online: '1',
      state: String(xenbus.initialising),
    });
  }

  /** Brings the nodes to where the devices are, each end through the states between. */
  publish(domid: number, disks: readonly AttachedDisk[]): void {
    const seen = disks.length > 0 ? native(() => this.#hv.disks(this.#machine, domid)) : [];
    seen.forEach((now, index) => {
      this.#publishOne(domid, index, now, disks[index]?.port ?? 0);
    });
  }

  removed(domid: number): void {
    this.#xenstore.remove(`/local/domain/0/backend/vbd/${domid}`);
  }

  /**
   * HOST_UNAVAILABLE if a backend does not close in time: then the disks are as they were. CANCELLED as soon as it is not
   * `wanted` any more.
   */
  async detach(domid: number, disks: readonly AttachedDisk[], wanted: () => boolean): Promise<void> {
    const place = { domid };
    const deadline = performance.now() + closeTimeoutMs;
    while (!native(() => this.#hv.detachDisks(this.#machine, domid))) {
      if (performance.now() > deadline) {
        this.attach(domid, disks);
        const text = `a disk of domain ${domid} did not close within ${closeTimeoutMs} ms: its backend does not answer`;
        throw new DormouseError('HOST_UNAVAILABLE', text, { place });
      }
      await sleep(pollMs);
      if (!wanted()) throw new DormouseError('CANCELLED', `the lease on domain ${domid} ended`, { place });
    }
    this.publish(domid, disks);
  }

  attach(domid: number, disks: readonly AttachedDisk[]): void {
    native(() => this.#hv.attachDisks(this.#machine, domid));
    this.publish(domid, disks);
  }

  behave(domid: number, index: number, how: BackendBehaviour): void {
    native(() => this.#hv.setBackend(this.#machine, domid, index, how));
  }

  #publishOne(domid: number, index: number, now: NativeDisk, port: number): void {
    const [front, back] = [frontPath(domid, index), backPath(domid, index)];
    if (now.backend === xenbus.initWait) this.#writeAll(back, { sectors: String(now.sectors) });
    if (now.frontend === xenbus.connected) {
      this.#move(back, xenbus.initWait);
      this.#writeAll(front, {
        'ring-ref': String(now.ringRef),
        'event-channel': String(port),
        protocol: 'x86_64-abi',
      });
      this.#move(front, xenbus.initialised);
      this.#writeAll(back, { sectors: String(now.sectors), 'sector-size': '512', info: '0' });
    }
    this.#move(back, now.backend);
    this.#move(front, now.frontend);
  }

  /** A state is written only where it is another one, and not gone back to on the way to a later one. */
  #move(home: string, state: number): void {
    const path = `${home}/state`;
    const before = Number(this.#xenstore.read(path));
    const onTheWay = state === xenbus.initWait || state === xenbus.initialised;
    if (before === state || (onTheWay && before > state && before < xenbus.closing)) return;
    this.#xenstore.write(path, String(state));
  }

  #writeAll(home: string, nodes: Readonly<Record<string, string>>): void {
    for (const [name, value] of Object.entries(nodes))
      if (this.#xenstore.read(`${home}/${name}`) !== value) this.#xenstore.write(`${home}/${name}`, value);
  }
}

const frontPath = (domid: number, index: number): string =>
  `/local/domain/${domid}/device/vbd/${vdevOf(index)}`;
const backPath = (domid: number, index: number): string =>
  `/local/domain/0/backend/vbd/${domid}/${vdevOf(index)}`;

/** The toolstack's half of a domain's block devices: whose file a disk may be, and its nodes in xenstore. */
import { realpathSync, statSync } from 'node:fs';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { DomainDisk, Obstacle } from '../contract.js';
import type { DiskConfig } from './guest_config.js';
import type { NativeDisk } from './hypervisor.js';
import type { XenstoreTree } from './xenstore.js';
import { XenbusNodes } from './xenbus_nodes.js';

/** A disk that a domain has: what is behind it, by which another name of the same is known. */
export interface AttachedDisk extends DomainDisk {
  readonly identity: string;
  readonly port: number;
}

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

/** Writes what libxl writes of a new disk. */
export function addDiskNodes(
  xenstore: XenstoreTree,
  domid: number,
  { name, path, writable }: AttachedDisk,
  index: number,
): void {
  const vdev = vdevOf(index);
  new XenbusNodes(xenstore, domid, 'vbd', vdev).add(
    domid,
    { 'virtual-device': String(vdev), 'device-type': 'disk' },
    { dev: name, params: path, mode: writable ? 'w' : 'r' },
  );
}

export function publishDisk(
  xenstore: XenstoreTree,
  domid: number,
  { port }: AttachedDisk,
  index: number,
  now: NativeDisk,
): void {
  const offers = { sectors: String(now.sectors) };
  new XenbusNodes(xenstore, domid, 'vbd', vdevOf(index)).publish(now, {
    offers,
    asks: { 'ring-ref': String(now.ringRefs[0]), 'event-channel': String(port), protocol: 'x86_64-abi' },
    serves: { ...offers, 'sector-size': '512', info: '0' },
  });
}

/** The disks that a domain has, and those of a configuration that cannot be given to a new one: they are not there, or another domain has them. */
import { readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { DormouseError } from '../../errors.js';
import type { DomainDisk, Obstacle, Xenstore } from '../contract.js';

const backends = '/local/domain/0/backend';

interface Disk {
  /** As the guest calls it. */
  readonly name: string;
  readonly path: string;
  readonly writable: boolean;
}
interface DiskInUse extends Disk {
  readonly domid: number;
  readonly same: ReadonlySet<string>;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null;

/** Disks whose path is one of this machine: those with a script or in another domain are not known here. */
function localDisks(disks: unknown): Disk[] {
  return (Array.isArray(disks) ? disks : []).flatMap((disk: unknown) => {
    if (!isObject(disk)) return [];
    const { pdev_path: path, vdev, script, readwrite, backend_domid: backend, backend_domname: name } = disk;
    const elsewhere = Boolean(script) || Boolean(backend) || Boolean(name);
    if (elsewhere || typeof path !== 'string' || !path.startsWith('/')) return [];
    return [
      {
        name: typeof vdev === 'string' ? vdev : '?',
        path,
        writable: readwrite !== undefined && readwrite !== 0,
      },
    ];
  });
}

function statOf(path: string): Stats | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

/** Of a device number as Linux packs it into 64 bits. */
function deviceWords(device: number): string {
  const bits = BigInt(device);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & ~0xfffn);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
}

/** The file behind a loop device; null for any other. */
function backingFile(device: string): string | null {
  try {
    return readFileSync(`/sys/dev/block/${device}/loop/backing_file`, 'utf8').trimEnd();
  } catch {
    return null;
  }
}

/** Whether a loop device begins and ends where its file does. */
function showsAll(device: string): boolean {
  const isNone = (name: string): boolean =>
    readFileSync(`/sys/dev/block/${device}/loop/${name}`, 'utf8').trimEnd() === '0';
  try {
    return isNone('offset') && isNone('sizelimit');
  } catch {
    return false;
  }
}

/** What the bytes of a device are known by: itself and, for a loop device, its file. */
function ofDevice(device: string): string[] {
  const file = backingFile(device);
  const stat = file === null ? null : statOf(file);
  return [`device ${device}`, ...(stat ? [`file ${stat.dev}:${stat.ino}`] : [])];
}

/** Two paths with a name in common lead to the same bytes, whatever links are between. */
function namesOf(path: string): string[] {
  const stat = statOf(path);
  if (stat === null) return [];
  return stat.isBlockDevice() ? ofDevice(deviceWords(stat.rdev)) : [`file ${stat.dev}:${stat.ino}`];
}

/** Where the kernel has put a device, which it does without udev. */
function nodeOf(device: string): string {
  try {
    const text = readFileSync(`/sys/dev/block/${device}/uevent`, 'utf8');
    return `/dev/${/^DEVNAME=(.+)$/mu.exec(text)?.[1] ?? ''}`;
  } catch {
    return `/dev/block/${device}`;
  }
}

/** By which a mapped device is known after a restart of the host, too: its number may then be another's. */
function lastingPath(path: string, device: string): string {
  try {
    const name = readFileSync(`/sys/dev/block/${device}/dm/name`, 'utf8').trimEnd();
    const stat = statSync(`/dev/mapper/${name}`);
    if (stat.isBlockDevice() && deviceWords(stat.rdev) === device) return `/dev/mapper/${name}`;
  } catch {
    // No mapped device, or nobody named it.
  }
  return path;
}

/** What a backend writes to its node `physical-device`. */
function numbersOf(physical: string): string | null {
  const [, major, minor] = /^([0-9a-f]+):([0-9a-f]+)$/i.exec(physical) ?? [];
  return major === undefined || minor === undefined ? null : `${parseInt(major, 16)}:${parseInt(minor, 16)}`;
}

/** What is behind a device, or what the toolstack named where its backend does not say. HOST_LACKS. */
function behind(name: string, params: string, physical: string): Pick<DomainDisk, 'path' | 'kind'> {
  const lacks = (why: string): DormouseError => new DormouseError('HOST_LACKS', `disk ${name}: ${why}`);
  const fileOf = (device: string): string | null => {
    const file = backingFile(device);
    if (file === null || showsAll(device)) return file;
    throw lacks(`a loop device shows a part of ${file}, and only those that show all are known`);
  };
  const numbers = numbersOf(physical);
  const given = numbers === null ? params : (fileOf(numbers) ?? nodeOf(numbers));
  const stat = statOf(given);
  if (!stat) throw lacks(`${given} is not there`);
  const path = realpathSync(given);
  if (stat.isFile()) return { path, kind: 'file' };
  if (!stat.isBlockDevice()) throw lacks(`${path} is neither a file nor a block device`);
  const device = deviceWords(stat.rdev);
  const file = fileOf(device);
  return file === null
    ? { path: lastingPath(path, device), kind: 'block' }
    : { path: realpathSync(file), kind: 'file' };
}

/** Backends whose disks the control domain's kernel serves: what it has answered is in the file or device. */
const kernels = 'vbd';
const others = ['qdisk', 'vbd3', 'tap'];

/**
 * `disks` of the contract, by what the backends say: no guest may write there. HOST_LACKS for one that is served by a process, which may
 * keep to itself what it has answered.
 */
export async function domainDisks(xenstore: Xenstore, domid: number): Promise<DomainDisk[]> {
  for (const kind of others) {
    const [device] = await xenstore.list(`${backends}/${kind}/${domid}`);
    if (device !== undefined)
      throw new DormouseError('HOST_LACKS', `domain ${domid} has a disk that ${kind} serves (${device})`, {
        place: { domid },
      });
  }
  const home = `${backends}/${kernels}/${domid}`;
  const found: DomainDisk[] = [];
  for (const device of await xenstore.list(home)) {
    const read = async (node: string): Promise<string> =>
      (await xenstore.read(`${home}/${device}/${node}`)) ?? '';
    const [name, params, mode, physical] = await Promise.all(
      ['dev', 'params', 'mode', 'physical-device'].map(read),
    );
    // An empty drive.
    if (!params) continue;
    found.push({ name: name ?? '', ...behind(name ?? '', params, physical ?? ''), writable: mode === 'w' });
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function disksInUse(xenstore: Xenstore, running: ReadonlySet<number>): Promise<DiskInUse[]> {
  const found: DiskInUse[] = [];
  for (const kind of await xenstore.list(backends))
    for (const domid of (await xenstore.list(`${backends}/${kind}`)).map(Number)) {
      if (!running.has(domid)) continue;
      for (const device of await xenstore.list(`${backends}/${kind}/${domid}`)) {
        const home = `${backends}/${kind}/${domid}/${device}`;
        const read = async (node: string): Promise<string> => (await xenstore.read(`${home}/${node}`)) ?? '';
        const [params, mode, dev, physical] = await Promise.all(
          ['params', 'mode', 'dev', 'physical-device'].map(read),
        );
        if (!params) continue;
        // "aio:/images/a", "qcow2:/images/a", "/dev/vg/a"
        const path = params.replace(/^\w+:(?=\/)/, '');
        const known = numbersOf(physical ?? '');
        const node = known === null ? [] : ofDevice(known);
        const same = new Set([...namesOf(path), ...node]);
        found.push({ domid, name: dev ?? device, path, writable: mode === 'w', same });
      }
    }
  return found;
}

/** `running`: the domains to look at. Two that both only read a disk do not disturb each other. */
export async function diskObstacles(
  disks: unknown,
  xenstore: Xenstore,
  running: ReadonlySet<number>,
): Promise<Obstacle[]> {
  const wanted = localDisks(disks);
  if (wanted.length === 0) return [];
  const inUse = await disksInUse(xenstore, running);
  return wanted.flatMap(({ name, path, writable }): Obstacle[] => {
    const names = namesOf(path);
    if (names.length === 0) return [{ code: 'HOST_LACKS', message: `disk ${name}: ${path} is not there` }];
    const other = inUse.find(
      (disk) => (disk.writable || writable) && names.some((one) => disk.same.has(one)),
    );
    if (!other) return [];
    const may = other.writable ? 'writes to it' : 'reads it while this one would write';
    return [
      {
        code: 'DISK_IN_USE',
        message: `disk ${name}: ${path} is ${other.name} of domain ${other.domid}, which ${may}`,
      },
    ];
  });
}

/** `sharedDisks` of the contract, among those that are there. */
export async function sharedDisks(
  xenstore: Xenstore,
  domid: number,
  there: ReadonlySet<number>,
): Promise<Obstacle[]> {
  const inUse = await disksInUse(xenstore, there);
  const mine = inUse.filter((disk) => disk.domid === domid && disk.writable);
  return mine.flatMap(({ name, path, same }): Obstacle[] => {
    const other = inUse.find((disk) => disk.domid !== domid && [...same].some((one) => disk.same.has(one)));
    if (!other) return [];
    const message = `disk ${name}: ${path} is ${other.name} of domain ${other.domid}, too`;
    return [{ code: 'DISK_IN_USE', message }];
  });
}

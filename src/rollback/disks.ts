/** The disks of a domain that goes back: those of its point are put back, or it is said that they stay. */
import { fault, needsProgram, putBack } from '../disks/keep.js';
import { bytesOf } from '../disks/size.js';
import { type DiskWay, noDisks } from '../disks/way.js';
import type { DomainInfo } from '../domain/state.js';
import { DormouseError } from '../errors.js';
import type { DomainDisk, Host } from '../host/contract.js';
import type { DomainPoints, HeldDisk } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';

/** Of a domain whose backends are away. */
export interface DisksBack {
  /** The names of the disks. */
  readonly names: readonly string[];
  /** Looks again, before anything is touched: HOST_LACKS, DISK_IN_USE. */
  stillMay(): Promise<void>;
  /** The same again after one that was cut short comes to the same. */
  putBack(): Promise<void>;
}

const lacks = (message: string, advice?: string): DormouseError =>
  new DormouseError('HOST_LACKS', message, advice === undefined ? {} : { advice });

async function written(host: Host, { domid }: DomainInfo): Promise<DomainDisk[]> {
  return (await host.disks(domid)).filter(({ writable }) => writable);
}

/** HOST_LACKS for a domain that writes to disks, where they are neither put back nor said to stay. */
export async function requireDisksMayStay(host: Host, info: DomainInfo, keepDisks: boolean): Promise<void> {
  if (keepDisks) return;
  const [first, ...others] = (await written(host, info)).map(({ name }) => name);
  if (first === undefined) return;
  throw lacks(
    `${[first, ...others].join(', ')} of ${info.name} is written to, and what it goes back to holds no disks: see --keep-disks`,
    'Take points with `--disks`; or put the disk back yourself and say `--keep-disks`.',
  );
}

/** How the disks are others than those of the point; null if they are not. */
async function difference(held: readonly HeldDisk[], now: readonly DomainDisk[]): Promise<string | null> {
  const names = new Set(held.map(({ disk }) => disk.name));
  const gained = now.filter(({ name }) => !names.has(name)).map(({ name }) => `${name} is new`);
  const parts: string[] = [];
  for (const { disk } of held) {
    const its = now.find(({ name }) => name === disk.name);
    if (!its) parts.push(`${disk.name} is gone, or not written to any more`);
    else if (its.path !== disk.path) parts.push(`${disk.name} is ${its.path}, and was ${disk.path}`);
    else {
      const bytes = await bytesOf(its.path);
      if (bytes !== disk.bytes) parts.push(`${disk.name} has ${bytes} bytes, and had ${disk.bytes}`);
    }
  }
  return [...parts, ...gained].join(', ') || null;
}

/** DISK_IN_USE where another domain has one of them: what is put back would be put under it. */
async function requireAlone(host: Host, { domid }: DomainInfo): Promise<void> {
  const [shared] = await host.sharedDisks(domid);
  if (!shared) return;
  throw new DormouseError(shared.code, shared.message, {
    guest: 'untouched',
    advice: 'Take it from the other domain first; or see `--keep-disks`.',
  });
}

/**
 * What puts back the disks of a point; null where it holds none. Nothing of them has changed when it returns. HOST_LACKS if they are not
 * those that the domain has now, or a copy is not there; DISK_IN_USE, USAGE, COMMAND_FAILED.
 */
export async function disksBack(
  host: Host,
  info: DomainInfo,
  points: DomainPoints,
  record: PointRecord,
): Promise<DisksBack | null> {
  const { disks } = record;
  if (disks.kind === 'none') return null;
  const { keepers } = points;
  if (disks.disks.length > 0 && needsProgram(disks.kind, keepers))
    throw new DormouseError(
      'USAGE',
      `the disks of point ${record.id} were kept by ${String(disks.program)}`,
      {
        advice: 'Say what puts them back: `--disks command:PROGRAM`; or `--keep-disks`.',
      },
    );
  const held = await points.heldDisks(record);
  const stillMay = async (): Promise<void> => {
    const other = await difference(held, await written(host, info));
    if (other !== null)
      throw lacks(`the disks of ${info.name} are not those of point ${record.id}: ${other}`);
    await requireAlone(host, info);
  };
  await stillMay();
  for (const one of held) {
    const wrong = await fault(keepers, one, one.file);
    if (wrong !== null) throw new DormouseError('STORE_DAMAGED', `point ${record.id}: ${wrong}`);
  }
  return {
    names: held.map(({ disk }) => disk.name),
    stillMay,
    putBack: async () => {
      for (const one of held) await putBack(keepers, one, one.disk.path, one.file);
    },
  };
}

/**
 * How the disks are kept in the point before: as the user says, or as in the one that it goes back to. USAGE where they are to be put back
 * and nothing would have them as they are now.
 */
export function safetyWay(
  { id, disks }: PointRecord,
  typed: DiskWay | undefined,
  keepDisks: boolean,
): DiskWay {
  const goBack = !keepDisks && disks.kind !== 'none' && disks.disks.length > 0;
  if (typed?.kind === 'none' && goBack)
    throw new DormouseError(
      'USAGE',
      `the disks go back to point ${id}, and the safety point would not hold what is in them now`,
      { advice: 'Leave `--disks none` out; or say `--no-safety`, or `--keep-disks`.' },
    );
  if (typed) return typed;
  if (keepDisks || disks.kind === 'none') return noDisks;
  return disks.kind === 'command' ? { kind: 'command', program: disks.program ?? '' } : { kind: disks.kind };
}

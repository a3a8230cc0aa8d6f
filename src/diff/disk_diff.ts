/** Which disks two points hold, and how they differ from outside: nothing is read of their content. */
import type { KeptDisks } from '../disks/kept.js';

export interface DiskOfPoint {
  /** Of the file or device that it was taken of. */
  readonly path: string;
  readonly bytes: number;
  /** How it is kept. */
  readonly kind: string;
}

export interface DiskDiff {
  readonly name: string;
  /** Null: that point does not hold it. */
  readonly from: DiskOfPoint | null;
  readonly to: DiskOfPoint | null;
}

function disksOf(kept: KeptDisks): Map<string, DiskOfPoint> {
  if (kept.kind === 'none') return new Map();
  const { kind, disks } = kept;
  return new Map(disks.map(({ name, path, bytes }) => [name, { path, bytes, kind }]));
}

/** Every disk that one of them holds, by name. */
export function diffDisks(from: KeptDisks, to: KeptDisks): DiskDiff[] {
  const [was, is] = [disksOf(from), disksOf(to)];
  const names = [...new Set([...was.keys(), ...is.keys()])].sort();
  return names.map((name) => ({ name, from: was.get(name) ?? null, to: is.get(name) ?? null }));
}

/** Points of an imagined domain, whose images are only what they say of their ancestors. */
import { Buffer } from 'node:buffer';
import type { KeptDisks } from '../../src/disks/kept.js';
import type { Descent } from '../../src/store/lineage.js';
import type { PointRecord } from '../../src/store/record.js';

export const uuid = '11111111-2222-4333-8444-555555555555';

const hexOf = (text: string, digits: number): string =>
  Buffer.from(text).toString('hex').slice(-digits).padStart(digits, '0');

/** The image of a point: whole, or with the changes since `parent`. */
export function descentOf(id: string, needs: Descent['needs'], mapKind: Descent['mapKind']): Descent {
  return { imageId: hexOf(id, 32), root: hexOf(id, 64), mapKind, needs };
}

export function recordOf(
  id: string,
  imageName: string,
  { imageId, root, needs }: Descent,
  disks: KeptDisks = { kind: 'none' },
): PointRecord {
  const sequence = needs.length === 0 ? 0 : 1;
  return {
    version: disks.kind === 'none' ? 1 : 2,
    ...{ id, takenAt: '2026-01-01T00:00:00.000Z', hostKind: 'embedded', parent: null },
    domain: { uuid, name: 'guest', domid: 1, type: 'pvh', vcpus: 1 },
    image: {
      ...{ name: imageName, imageId, root, chainId: imageId, sequence, consistency: 'suspend-point' },
      ...{ storedBytes: 1, memoryBytes: 1, changedPages: 1 },
    },
    ...{ reason: 'protect', mode: 'light', pauseMs: 0, elapsedMs: 0, disks, unfit: '' },
  };
}

/** What a store is told of an image that a point was flattened to. */
export function flatImageOf(record: PointRecord, { imageId, root }: Descent): PointRecord['image'] {
  return { ...record.image, imageId, root, chainId: imageId, sequence: 0 };
}

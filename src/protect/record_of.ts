/** The record of a point, of what its image was taken of. */
import type { Captured } from '../capture/write_image.js';
import type { DomainInfo } from '../domain/state.js';
import type { Host } from '../host/contract.js';
import type { Consistency } from '../image/format.js';
import type { BegunPoint } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';

type Copied = 'parent' | 'reason' | 'mode' | 'pauseMs' | 'elapsedMs' | 'disks' | 'unfit';

export interface Occasion extends Pick<PointRecord, Copied> {
  readonly consistency: Consistency;
  /** When the domain stood. Milliseconds since 1970. */
  readonly atMs: number;
}

export function recordOf(
  host: Host,
  { uuid, name, domid, type, vcpus }: DomainInfo,
  { id, imageName }: BegunPoint,
  { counts, memoryBytes, storedBytes, committed }: Captured,
  { consistency, atMs, ...occasion }: Occasion,
): PointRecord {
  const { imageId, root, chainId, sequence, nrPfns } = committed;
  return {
    version: occasion.disks.kind === 'none' ? 1 : 2,
    ...{ id, takenAt: new Date(atMs).toISOString(), ...occasion },
    domain: { uuid, name, domid, type, vcpus },
    hostKind: host.kind,
    image: {
      ...{ name: imageName, imageId, root, chainId, sequence, consistency, storedBytes, memoryBytes },
      changedPages: nrPfns - counts.sameAsParent,
    },
  };
}

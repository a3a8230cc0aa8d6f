/** Whether the points of a domain can be read: their records, their images, and all that those need. */
import { basename } from 'node:path';
import { fault } from '../disks/keep.js';
import { asDormouseError } from '../errors.js';
import { requireImage } from '../image/image_file.js';
import { verifyImage } from '../image/verify.js';
import type { DomainPoints } from './domain_points.js';
import type { PointRecord } from './record.js';

export interface PointFinding {
  /** Null: of an image that several points need, or of the store. */
  readonly point: string | null;
  readonly image: string | null;
  readonly what: string;
}

export interface PointsReport {
  readonly points: number;
  /** Files looked at. */
  readonly images: number;
  /** Disks that points hold. */
  readonly disks: number;
  readonly findings: PointFinding[];
}

async function checkPoint(
  points: DomainPoints,
  { id, image }: PointRecord,
  images: Set<string>,
): Promise<PointFinding[]> {
  try {
    await requireImage(await points.imagePath({ image }), image);
    for (const name of await points.needs(image.name)) images.add(name);
    return [];
  } catch (thrown) {
    return [{ point: id, image: image.name, what: asDormouseError(thrown).message }];
  }
}

/** That each is there, and as large as it was. */
async function checkDisks(points: DomainPoints, record: PointRecord): Promise<PointFinding[]> {
  const findings: PointFinding[] = [];
  for (const held of await points.heldDisks(record)) {
    try {
      const what = await fault(points.keepers, held, held.file);
      if (what !== null) findings.push({ point: record.id, image: null, what });
    } catch (thrown) {
      findings.push({ point: record.id, image: null, what: asDormouseError(thrown).message });
    }
  }
  return findings;
}

/** Each file once: an image is read with all that it rests on. */
async function readWhole(
  points: DomainPoints,
  records: readonly PointRecord[],
  signal: AbortSignal | undefined,
): Promise<PointFinding[]> {
  const [read, findings] = [new Set<string>(), [] as PointFinding[]];
  for (const { image, id } of records.slice().reverse()) {
    if (read.has(image.name)) continue;
    const report = await verifyImage(await points.imagePath({ image }), { ...(signal && { signal }) });
    for (const name of [image.name, ...report.ancestors.map((path) => basename(path))]) read.add(name);
    for (const { what, path } of report.findings)
      findings.push({
        point: path === undefined ? id : null,
        image: path === undefined ? image.name : basename(path),
        what,
      });
  }
  return findings;
}

/** CANCELLED; what else is wrong is in the findings. */
export async function verifyPoints(
  points: DomainPoints,
  { readData, signal }: { readonly readData: boolean; readonly signal?: AbortSignal | undefined },
): Promise<PointsReport> {
  const [records, findings, images] = [[] as PointRecord[], [] as PointFinding[], new Set<string>()];
  let disks = 0;
  for (const id of await points.ids()) {
    try {
      const record = await points.find(id);
      records.push(record);
      findings.push(...(await checkPoint(points, record, images)));
      findings.push(...(await checkDisks(points, record)));
      if (record.disks.kind !== 'none') disks += record.disks.disks.length;
    } catch (thrown) {
      findings.push({ point: id, image: null, what: asDormouseError(thrown).message });
    }
  }
  const bad = new Set(findings.map(({ point }) => point));
  const readable = records.filter(({ id }) => !bad.has(id));
  if (readData) findings.push(...(await readWhole(points, readable, signal)));
  return { points: records.length, images: images.size, disks, findings };
}

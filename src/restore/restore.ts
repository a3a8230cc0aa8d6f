/** `restore`: a new domain from an image, complete or not at all. */
import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import { Operation, type Phases } from '../domain/operation.js';
import type { PageCounts } from '../domain/progress.js';
import type { DomainWanted, Host } from '../host/contract.js';
import { ImageReader } from '../image/reader.js';
import { memoryBytesOf } from '../pfn/counts.js';
import { DormouseError, inFile, ofGuest } from '../errors.js';
import { laneCount, warmWorkers } from '../worker/pool.js';
import { type CheckOptions, findingsOf, wantedOf, withDisks } from './check.js';
import { fillDomain, ProgressOfRestore } from './fill.js';
import { type RestoredFormat, withImageOf } from './image_of_file.js';
import { admittedPfns } from './proportion.js';
import { isTrusted } from './trust.js';

export interface RestoreOptions extends CheckOptions {
  /** Leave the new domain paused (-p). */
  readonly paused: boolean;
}

export interface RestoreResult {
  /** What the file was; the image of an `xl save` file is a temporary one. */
  readonly from: RestoredFormat;
  readonly notes: readonly string[];
  readonly domid: number;
  readonly name: string;
  readonly imageId: string;
  readonly counts: PageCounts;
  readonly memoryBytes: number;
  readonly elapsedMs: number;
  /** What it is the sum of; the guest is nobody's before `settle`. */
  readonly phases: Phases;
}

interface BuildContext {
  readonly progress: ProgressOfRestore;
  readonly operation: Operation;
  readonly mostPfns: number;
}

/** Builds under a lease: whatever fails, the half-built domain goes with it. */
async function build(
  host: Host,
  reader: ImageReader,
  { spec, neededKib }: DomainWanted,
  options: RestoreOptions,
  { progress, operation, mostPfns }: BuildContext,
): Promise<number> {
  if (host.buildFromImage) {
    const { path, root, header } = reader;
    const image = { path: resolve(path), neededKib, mostPfns, imageId: header.imageId, root };
    const domid = await host.buildFromImage(spec, image, options);
    operation.done('write');
    return domid;
  }
  await warmWorkers();
  const { lease, builder } = await host.build(spec);
  try {
    await fillDomain(builder, reader, { ...options, mostPfns }, progress);
    operation.done('write');
    if (!options.paused) await host.unpause(builder.domid);
  } catch (thrown) {
    await host.destroy(builder.domid).catch(() => undefined);
    await lease.release().catch(() => undefined);
    throw thrown;
  }
  // The domain is there: a lease that stays is dropped once this process is dead.
  await lease.release().catch(() => undefined);
  return builder.domid;
}

type Built = Omit<RestoreResult, 'from' | 'elapsedMs' | 'phases'>;

/** Two domains of one uuid could not be told apart by it: the guest of the image runs still, or again. */
async function withOwnUuid(host: Host, wanted: DomainWanted): Promise<[DomainWanted, notes: string[]]> {
  const { uuid } = wanted.spec;
  const twin = (await host.list()).find((other) => !other.dying && other.uuid === uuid);
  if (!twin) return [wanted, []];
  const own = randomUUID();
  const note = `its uuid is ${own}, for that of the image, ${uuid}, is the one of domain '${twin.name}'`;
  return [{ ...wanted, spec: { ...wanted.spec, uuid: own } }, [note]];
}

/** `given` is what the user named, of which `image` may have been made. */
async function restoreImage(
  host: Host,
  image: string,
  given: { readonly path: string; readonly from: RestoredFormat },
  options: RestoreOptions,
  operation: Operation,
): Promise<Built> {
  const reader = await ImageReader.open(image, { lanes: laneCount });
  try {
    const restored = { reader, ...given };
    const [finding] = await findingsOf(host, restored, options);
    if (finding) throw finding;
    const progress = new ProgressOfRestore(reader, options);
    const [wanted, notes] = await withOwnUuid(host, withDisks(host, wantedOf(reader, options), options));
    const mostPfns = admittedPfns(reader, isTrusted(restored, options));
    operation.done('prepare');
    const domid = await build(host, reader, wanted, options, { progress, operation, mostPfns });
    return {
      domid,
      notes,
      name: options.name ?? reader.manifest.domain.name,
      imageId: reader.header.imageId,
      counts: reader.counts,
      memoryBytes: memoryBytesOf(reader.counts),
    };
  } finally {
    reader.close();
  }
}

/**
 * Builds a new domain from an image or from a file of `xl save`, which is never changed. Each chunk is read once: its checksum
 * is compared before it is decoded and placed, and the domain may run only when all of them held. Errors: IMAGE_NOT_FOUND,
 * IMAGE_DAMAGED, IMAGE_INCOMPATIBLE, IMAGE_NOT_RESTORABLE (a paused image), CONFIG_UNTRUSTED, KEY_INVALID, CPU_INCOMPATIBLE,
 * DISK_IN_USE, CONFIG_INVALID, DOMAIN_EXISTS, NO_MEMORY, HOST_LACKS, PAGE_TABLE_INVALID, CANCELLED; of an xl file also
 * STREAM_INVALID, STREAM_UNSUPPORTED, NO_SPACE. After each of
 * them no domain and no temporary image is left.
 */
export async function restore(host: Host, path: string, options: RestoreOptions): Promise<RestoreResult> {
  const operation = new Operation();
  try {
    return await withImageOf(path, options, async ({ path: image, from, notes }) => {
      const restored = await restoreImage(host, image, { path, from }, options, operation);
      operation.done('settle');
      const all = [...notes, ...restored.notes];
      return { ...restored, from, notes: all, elapsedMs: operation.totalMs, phases: operation.parts() };
    });
  } catch (thrown) {
    // Whatever was begun of the domain is gone.
    if (thrown instanceof DormouseError) {
      const error = thrown.code === 'IMAGE_DAMAGED' ? inFile(thrown, path) : thrown;
      throw error.guest === 'untouched' ? ofGuest(error, 'none') : error;
    }
    throw new DormouseError('RESTORE_FAILED', `restore of ${path} failed`, { cause: thrown });
  }
}

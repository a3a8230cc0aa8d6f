/** Takes points of one domain into a store, for as long as both are there: each holds what changed since the one before. */
import { CaptureSession, type Taken } from '../capture/session.js';
import { openParent } from '../capture/parent_image.js';
import { type Captured, commitImage } from '../capture/write_image.js';
import { type Compression, defaultCompression } from '../codec/compression.js';
import type { CheckpointMode } from '../domain/checkpoint_mode.js';
import { Operation } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import { asDormouseError, DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import { DeltaBases } from '../image/delta_bases.js';
import { ImageReader } from '../image/reader.js';
import type { SignRoot } from '../image/signature.js';
import { type Consistency, FULL_MAP_EVERY } from '../image/format.js';
import { ImageWriter, parentOf, type ParentImage } from '../image/writer.js';
import type { KeptDisks } from '../disks/kept.js';
import { type DiskWay, noDisks } from '../disks/way.js';
import type { BegunPoint, DomainPoints } from '../store/domain_points.js';
import type { ImageLease } from '../store/leases.js';
import { recordOf } from './record_of.js';
import type { PointRecord } from '../store/record.js';
import type { PointStore } from '../store/store.js';
import type { TakingDisks } from '../store/taking_disks.js';
import { imageSigner } from '../trust/key_store.js';
import { encodingLanes, laneCount, warmWorkers } from '../worker/pool.js';

export interface PointOptions extends OperationOptions {
  readonly mode: CheckpointMode;
  readonly reason: PointRecord['reason'];
  readonly compression?: Compression;
  /** Pages that changed little are stored as what changed of them, where the compression is lz4. Default false. */
  readonly deltas?: boolean;
  readonly suspendTimeoutMs?: number;
  /** All of memory, and the first of a chain of its own. */
  readonly whole?: boolean;
  /** Asked before a pause, with the pages that changed during the last pass; false: pass over them once more, then give up. */
  readonly mayPause?: (changedPages: number) => boolean;
  /** How the disks that the domain writes to are kept; not at all by default. */
  readonly disks?: DiskWay;
}

/** The last point, and its image as a parent. */
interface Head {
  readonly id: string;
  readonly imageName: string;
  readonly imageId: string;
  readonly root: string;
  readonly path: string;
  /** Of one that this session took; what changed since is known then. */
  readonly image: ParentImage | null;
}

export interface TakenPoint {
  readonly record: PointRecord;
  readonly path: string;
  /** Pages copied in the pause. */
  readonly copiedPages: number;
}

/** All that is to be a point once its record is there. */
interface Got {
  readonly taken: Taken;
  readonly captured: Captured;
  readonly disks: KeptDisks;
}

export class PointSession {
  /** What deltas of its images rest on; none where pages are not to be coded. */
  #bases: DeltaBases | undefined;
  #head: Head | null = null;
  #firstTake = true;
  #toldOfDisks = false;

  private constructor(
    readonly session: CaptureSession,
    readonly points: DomainPoints,
    private readonly lease: ImageLease,
    private readonly sign: SignRoot | null,
    private readonly notice: (text: string) => void,
  ) {}

  /**
   * Takes the domain's lease. `notice` is told what an operator should know. DOMAIN_NOT_FOUND, DOMAIN_WRONG_STATE, LOCKED,
   * KEY_INVALID.
   */
  static async open(
    host: Host,
    selector: string,
    store: PointStore,
    notice: (text: string) => void = () => undefined,
  ): Promise<PointSession> {
    const sign = imageSigner();
    const session = await CaptureSession.open(host, selector, 'checkpoint');
    const points = store.points(session.info.uuid);
    return new PointSession(session, points, points.lease(), sign, notice);
  }

  /** The chain that the next point goes on with; null before the first. */
  get chainId(): string | null {
    return this.#head?.image?.chainId ?? null;
  }

  /**
   * Takes a point; it exists when this returns, and if this throws there is none. Errors: as checkpoint, and those of a store:
   * STORE_DAMAGED, IMAGE_READ_FAILED, IMAGE_WRITE_FAILED, NO_SPACE. The guest runs on.
   */
  async take(options: PointOptions): Promise<TakenPoint> {
    const operation = new Operation();
    const before = await this.#before();
    const parent = options.whole === true ? null : before;
    // The head stays leased whatever this point is built on: the next one may be built on it if this one fails.
    const held = before ? [before.imageName] : [];
    const begun = await this.points.begin(this.lease, Date.now(), parent?.imageName ?? null, held);
    if (parent && !begun.parentStays) this.#loseHead(parent);
    const head = begun.parentStays ? parent : null;
    const taking = await this.#takingDisks(begun, options.disks ?? noDisks);
    let got: Got;
    try {
      got = await this.#capture(begun, taking, head, operation, options);
    } catch (thrown) {
      this.session.abortEpoch();
      // The first error is the one to tell; what cannot be undone now the next collection undoes.
      await taking.abandon().catch((late: unknown) => this.notice(asDormouseError(late).message));
      throw thrown;
    }
    const from = before?.id ?? null;
    return await this.#publish(begun, { ...got, from, options, tookMs: operation.totalMs });
  }

  /** The disks are whole before the image is: none is left of them if it cannot be. */
  async #capture(
    { imagePath }: BegunPoint,
    taking: TakingDisks,
    head: Head | null,
    operation: Operation,
    options: PointOptions,
  ): Promise<Got> {
    const { writer, whole } = await this.#writer(imagePath, head, options);
    const { signal } = options;
    try {
      await warmWorkers(encodingLanes);
      const how = { ...options, whole, ...(taking.keeps && { beside: taking }) };
      const taken = await this.session.take(writer, how);
      const disks = await taking.finish();
      const { pauseMs } = taken;
      const captured = await commitImage(writer, taken.source, { pauseMs, operation, signal });
      return { taken, captured, disks };
    } catch (thrown) {
      await writer.abandon();
      throw thrown;
    }
  }

  /** Those that it has now. */
  async #takingDisks(begun: BegunPoint, way: DiskWay): Promise<TakingDisks> {
    const { host, info } = this.session;
    if (way.kind === 'none') await this.#tellOfDisks();
    const disks = way.kind === 'none' ? [] : await host.disks(info.domid);
    return await this.points.takeDisks(begun, way, disks);
  }

  /** That they are not kept, once. */
  async #tellOfDisks(): Promise<void> {
    if (this.#toldOfDisks) return;
    this.#toldOfDisks = true;
    const { host, info } = this.session;
    // Where it cannot be told which there are, there are some.
    const disks = await host.disks(info.domid).catch(() => null);
    const written = disks?.filter(({ writable }) => writable).map(({ name }) => name) ?? ['its disks'];
    if (written.length > 0)
      this.notice(`no point holds what is written to ${written.join(', ')}: see --disks`);
  }

  /** Its images are not all there, or somebody is about to remove them: nothing is built on it any more. */
  #loseHead({ id }: Head): void {
    this.notice(`a new chain is begun: not all images that point ${id} needs are there`);
    this.#head = null;
    this.#firstTake = false;
  }

  async #publish(
    begun: BegunPoint,
    point: Got & {
      /** The point that it goes on from. */
      readonly from: string | null;
      readonly options: PointOptions;
      readonly tookMs: number;
    },
  ): Promise<TakenPoint> {
    const { captured, taken, disks, from, options, tookMs } = point;
    const { host, info } = this.session;
    const { mode, reason } = options;
    const { atMs, pauseMs, source } = taken;
    const unfit = source.state.links?.unfit ?? '';
    if (unfit !== '') this.notice(`point ${begun.id} is none to roll back to in place: ${unfit}`);
    const record = recordOf(host, info, begun, captured, {
      ...{ consistency: source.consistency, parent: from, reason, mode, atMs, pauseMs, elapsedMs: tookMs },
      ...{ disks, unfit },
    });
    try {
      await this.points.publish(record);
    } catch (thrown) {
      this.session.abortEpoch();
      throw thrown;
    }
    this.session.commitEpoch();
    this.#firstTake = false;
    const { imageId, root, path } = captured.committed;
    const { id, imageName } = begun;
    this.#head = { id, imageName, imageId, root, path, image: captured.committed };
    // The chain before is nobody's any more: to make room it may have to go before the next point.
    if (captured.committed.sequence === 0) await this.lease.hold([imageName]).catch(() => undefined);
    return { record, path: captured.path, copiedPages: taken.copiedPages };
  }

  /** The point that this very domain goes on from, which the next one is to be taken on. */
  async #before(): Promise<Head | null> {
    if (this.#head ?? !this.#firstTake) return this.#head;
    const record = await this.points.current().catch((thrown: unknown) => {
      this.notice(`a new chain is begun: ${asDormouseError(thrown).message}`);
      return null;
    });
    const { domid } = this.session.info;
    if (!record || record.domain.domid !== domid || record.hostKind !== this.session.host.kind) return null;
    const { name: imageName, imageId, root } = record.image;
    return {
      id: record.id,
      imageName,
      imageId,
      root,
      path: await this.points.imagePath(record),
      image: null,
    };
  }

  /** What an image that is damaged, missing or another one now can only tell by an error: null, and it is said why. */
  async #ofImage<T>(open: () => Promise<T>): Promise<T | null> {
    try {
      return await open();
    } catch (thrown) {
      const { code, message } = asDormouseError(thrown);
      if (!code.startsWith('IMAGE_')) throw thrown;
      this.notice(`a new chain is begun: ${message}`);
      return null;
    }
  }

  async #openBefore(head: Head, signal: AbortSignal | undefined): Promise<ImageReader> {
    const { path } = head;
    const reader = requireSame(
      await openParent(path, { signed: this.sign !== null, whole: false, signal }),
      head,
    );
    if (reader.nrPfns <= this.session.geometry.nrPfns) return reader;
    reader.close();
    throw new DormouseError('IMAGE_INCOMPATIBLE', `${path} is of a larger domain`);
  }

  /** By the tracker if this session took the parent and knows what changed since, else by the parent's page hashes. */
  async #writer(
    path: string,
    head: Head | null,
    { mode, compression = defaultCompression, deltas = false, signal }: PointOptions,
  ): Promise<{ writer: ImageWriter; whole: boolean }> {
    const { session, sign } = this;
    const consistency: Consistency = mode === 'light' && !session.copiesOnWrite ? 'paused' : 'suspend-point';
    const common = {
      ...{ nrPfns: session.geometry.nrPfns, lanes: encodingLanes, consistency, pageHashes: true },
      ...(sign && { sign }),
      ...{
        compression,
        ...(deltas && compression === 'lz4' && { deltas: (this.#bases ??= new DeltaBases()) }),
      },
    };
    const image = session.continues ? head?.image : null;
    const parent = image ? await this.#ofImage(() => withReaderIfDue(image)) : null;
    if (parent)
      return { writer: await created(path, { ...common, parent, closesParent: true }), whole: false };
    const reader = head && (await this.#ofImage(() => this.#openBefore(head, signal)));
    if (!reader) return { writer: await created(path, common), whole: true };
    const increment = { parent: parentOf(reader), closesParent: true, skipUnchanged: true, complete: true };
    return { writer: await created(path, { ...common, ...increment }), whole: true };
  }

  /** Gives the domain back, and the store's images free. */
  async end(): Promise<void> {
    try {
      await this.lease.drop();
    } finally {
      this.#bases?.close();
      await this.session.end();
    }
  }
}

/** A map of all pages needs the parent open. IMAGE_INCOMPATIBLE if it is another image now. */
async function withReaderIfDue(image: ParentImage): Promise<ParentImage> {
  if ((image.sequence + 1) % FULL_MAP_EVERY !== 0) return image;
  return parentOf(
    requireSame(await ImageReader.open(image.path, { lanes: laneCount, mapOnly: true }), image),
  );
}

/** Closes it if it is another image than the point's. */
function requireSame(
  reader: ImageReader,
  { path, imageId, root }: Pick<Head, 'path' | 'imageId' | 'root'>,
): ImageReader {
  if (reader.imageId === imageId && reader.root === root) return reader;
  reader.close();
  throw new DormouseError('IMAGE_INCOMPATIBLE', `${path} is not what its point says`);
}

async function created(
  path: string,
  options: Parameters<typeof ImageWriter.create>[1],
): Promise<ImageWriter> {
  try {
    return await ImageWriter.create(path, options);
  } catch (thrown) {
    options.parent?.reader?.close();
    throw thrown;
  }
}

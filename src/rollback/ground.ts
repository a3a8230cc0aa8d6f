/**
 * The lease under which a domain is rolled back, with what tells which pages change meanwhile: the host's log, which with a
 * safety image is the one of the session that takes it.
 */
import { rm } from 'node:fs/promises';
import { CaptureSession } from '../capture/session.js';
import { type Captured, commitImage, newImage } from '../capture/write_image.js';
import type { Operation } from '../domain/operation.js';
import type { OperationOptions } from '../domain/progress.js';
import type { DomainInfo, DomainState } from '../domain/state.js';
import { asDormouseError, DormouseError } from '../errors.js';
import type { Host, Lease, Tracker } from '../host/contract.js';
import type { ImageWriter } from '../image/writer.js';
import type { RollbackOptions, SafetyTaken } from './job.js';

type SafetyOptions = Pick<RollbackOptions, keyof OperationOptions | 'beside'>;

export interface KeptSafe {
  readonly image: Captured | null;
  readonly taken: () => SafetyTaken;
  /** What the log named until then. */
  readonly logged: readonly Buffer[];
}

export interface Ground {
  readonly lease: Lease;
  /** While the guest runs: what the log named since the last time; null where there is no log to be read then. */
  changes(): Promise<Buffer | null>;
  /** Right before the domain is held, its memory open: looks up what takes long and is wanted then. */
  prepare(): Promise<void>;
  /** Of a domain that is held, or about to be: all that was named since `changes`; null: anything may have changed. */
  lastChanges(): Promise<Buffer | null>;
  /** Of a domain that is held: it gets its safety image, if it is to have one. */
  keepSafe(pauseMs: () => number): Promise<KeptSafe>;
  /** Gives the domain back. */
  end(): Promise<void>;
}

async function trackerOf(host: Host, lease: Lease, info: DomainInfo): Promise<Tracker | null> {
  if (info.rewinding) return null;
  try {
    return await host.tracker(lease);
  } catch (thrown) {
    if (asDormouseError(thrown).code !== 'HOST_LACKS') throw thrown;
    return null;
  }
}

/** `safe`: of a domain whose safety image is there. */
export async function plainGround(host: Host, info: DomainInfo, safe?: KeptSafe): Promise<Ground> {
  const lease = await host.acquire(info.domid, 'rollback');
  try {
    const tracker = await trackerOf(host, lease, info);
    return {
      lease,
      changes: async () => (tracker ? await tracker.readAndClear() : null),
      prepare: async () => await tracker?.prepare(),
      lastChanges: async () => (tracker ? await tracker.peek() : null),
      keepSafe: () =>
        Promise.resolve(safe ?? { image: null, taken: () => ({ atMs: 0, pauseMs: 0 }), logged: [] }),
      end: () => lease.release(),
    };
  } catch (thrown) {
    await lease.release();
    throw thrown;
  }
}

class SafeGround implements Ground {
  #written: ImageWriter | null;

  constructor(
    private readonly session: CaptureSession,
    writer: ImageWriter,
    private readonly operation: Operation,
    private readonly options: SafetyOptions,
  ) {
    this.#written = writer;
  }

  get lease(): Lease {
    return this.session.lease;
  }

  /** All that is in the image before the pause need not be written in it. */
  async begin(): Promise<void> {
    if (!this.#written) return;
    const { signal, onProgress } = this.options;
    const progress = { ...(signal && { signal }), ...(onProgress && { onProgress }) };
    await this.session.take(this.#written, { ...progress, mode: 'light', whole: true });
    this.session.commitEpoch();
  }

  changes(): Promise<Buffer | null> {
    return Promise.resolve(null);
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  lastChanges(): Promise<Buffer | null> {
    return this.session.loggedSince();
  }

  async keepSafe(pauseMs: () => number): Promise<KeptSafe> {
    const { session, options, operation } = this;
    const writer = this.#written;
    if (!writer) throw new DormouseError('INTERNAL', 'the safety image was written already');
    const { source, logged } = await session.take(writer, {
      ...options,
      mode: 'light',
      whole: false,
    });
    const { signal } = options;
    const image = await commitImage(writer, source, { pauseMs: pauseMs(), operation, signal });
    this.#written = null;
    session.commitEpoch();
    // The snapshot wrote to start info when it let the guest go on in its suspend point.
    const since = await session.loggedSince();
    const taken = (): SafetyTaken => ({ atMs: Date.now() - pauseMs(), pauseMs: pauseMs() });
    return { image, taken, logged: [logged, since].filter((bitmap) => bitmap !== null) };
  }

  async end(): Promise<void> {
    try {
      await this.#written?.abandon();
    } finally {
      await this.session.end();
    }
  }
}

/** An image that cannot be gone back to in place is no safety. */
function requireWayBack({ links }: DomainState, { name }: DomainInfo): void {
  if (links?.unfit === '') return;
  const why = links?.unfit ?? 'it is paused';
  throw new DormouseError('HOST_LACKS', `${name} could not go back to how it is now: ${why}`, {
    advice: 'Try again, or say `--no-safety` to roll it back without a safety image.',
  });
}

/** The image goes again if the ground ends before the rollback was told of it. */
async function withImage(
  image: Captured,
  open: (safe: KeptSafe) => Promise<Ground>,
  taken: SafetyTaken,
): Promise<Ground> {
  const remove = (): Promise<void> => rm(image.path, { force: true });
  let told = false;
  const safe: KeptSafe = { image, taken: () => taken, logged: [] };
  const ground = await open(safe).catch(async (thrown: unknown) => {
    await remove();
    throw thrown;
  });
  const keepSafe = (pauseMs: () => number): Promise<KeptSafe> => {
    told = true;
    return ground.keepSafe(pauseMs);
  };
  const end = async (): Promise<void> => {
    if (!told) await remove();
    await ground.end();
  };
  return { ...ground, keepSafe, end };
}

/** Without copy-on-write the image is of a moment before: what the guest does until it stands is in neither. */
async function groundAfterImage(
  host: Host,
  info: DomainInfo,
  path: string,
  operation: Operation,
  options: SafetyOptions,
): Promise<Ground> {
  const session = await CaptureSession.open(host, String(info.domid), 'rollback');
  try {
    const writer = await newImage(path, session.geometry, 'paused', options);
    try {
      const { source, pauseMs, atMs } = await session.take(writer, {
        ...options,
        mode: 'light',
        whole: true,
      });
      requireWayBack(source.state, info);
      const image = await commitImage(writer, source, { pauseMs, operation, signal: options.signal });
      session.commitEpoch();
      await session.end();
      return await withImage(image, (safe) => plainGround(host, info, safe), { atMs, pauseMs });
    } catch (thrown) {
      await writer.abandon();
      throw thrown;
    }
  } finally {
    await session.end();
  }
}

/** The same with a safety image at `path`, most of which is written while the guest runs. Errors: those of `checkpoint`. */
export async function safeGround(
  host: Host,
  info: DomainInfo,
  path: string,
  operation: Operation,
  options: SafetyOptions,
): Promise<Ground> {
  const have = (await host.capabilities())['cow-snapshot'];
  if (have !== true && host.rewind) return groundAfterImage(host, info, path, operation, options);
  if (have !== true) throw new DormouseError('HOST_LACKS', `a safety image needs cow-snapshot: ${have}`);
  const session = await CaptureSession.open(host, String(info.domid), 'rollback');
  try {
    const writer = await newImage(path, session.geometry, 'suspend-point', options);
    const ground = new SafeGround(session, writer, operation, options);
    await ground.begin().catch(async (thrown: unknown) => {
      await writer.abandon();
      throw thrown;
    });
    return ground;
  } catch (thrown) {
    await session.end();
    throw thrown;
  }
}

/** The embedded host as a tool sees it: the host contract over one connection. */
import { performance } from 'node:perf_hooks';
import { asDormouseError, DormouseError } from '../../errors.js';
import type {
  Builder,
  Capabilities,
  DomainDisk,
  DomainEvent,
  DomainSpec,
  DomainWanted,
  Ending,
  Host,
  Lease,
  MemoryView,
  Obstacle,
  OperationKind,
  RewritePart,
  Rewriter,
  Snapshot,
  StoppedCapture,
  Tracker,
  Xenstore,
  XlDomain,
} from '../contract.js';
import { numbered } from '../events.js';
import type { HostConnection } from './connection.js';
import { checkSpec } from './guest_config.js';
import type { BackendBehaviour, GuestProgress, Unlogged } from './hypervisor.js';
import { configWithDisks } from './new_disks.js';
import { captureByCalls } from '../capture_by_calls.js';
import { MachineViews } from './memory_view.js';
import type { HostEvent } from './protocol.js';
import { type HostReport, type OpArgs, packNumbers, unpackNumbers } from './ops.js';
import { RemoteXenstore } from './remote_xenstore.js';
import type { Downtime } from '../../domain/operation.js';
import { hypervisorNote } from '../../domain/hypervisor_note.js';
import type { CoreState, DomainInfo, DomainState, MemoryGeometry } from '../../domain/state.js';

class RemoteLease implements Lease {
  #released: Promise<void> | undefined;

  constructor(
    readonly connection: HostConnection,
    readonly id: number,
    readonly domid: number,
  ) {}

  release(): Promise<void> {
    return (this.#released ??= this.#release());
  }

  async #release(): Promise<void> {
    try {
      await this.connection.call('release', { lease: this.id });
    } catch (thrown) {
      // The lease of a domain that was destroyed has ended already.
      if (!(thrown instanceof DormouseError) || thrown.code !== 'DOMAIN_NOT_FOUND') throw thrown;
    }
  }
}

const wellBehaved = { holds: 'nothing', delayUs: 0, seed: 0, neverCloses: false } as const;

type LeaseOp = 'resumeInPlace' | 'holdPaused' | 'releasePaused' | 'trackerOn' | 'trackerOff';

export class EmbeddedHost implements Host {
  readonly description: string;
  readonly kind = 'embedded';
  readonly xenstore: Xenstore;
  readonly configWithDisks = configWithDisks;
  readonly #connection: HostConnection;
  readonly #views = new MachineViews();

  constructor(connection: HostConnection, name: string) {
    this.#connection = connection;
    this.description = `embedded:${name}`;
    this.xenstore = new RemoteXenstore(connection);
  }

  capabilities(): Promise<Capabilities> {
    return this.#connection.call('capabilities', {});
  }

  list(): Promise<DomainInfo[]> {
    return this.#connection.call('list', {});
  }

  info(domid: number): Promise<DomainInfo> {
    return this.#connection.call('info', { domid });
  }

  find(selector: string): Promise<DomainInfo> {
    return this.#connection.call('find', { selector });
  }

  config(domid: number): Promise<string> {
    return this.#connection.call('config', { domid });
  }

  disks(domid: number): Promise<readonly DomainDisk[]> {
    return this.#connection.call('disks', { domid });
  }

  sharedDisks(domid: number): Promise<readonly Obstacle[]> {
    return this.#connection.call('sharedDisks', { domid });
  }

  async create(spec: DomainSpec | XlDomain, { paused }: { paused: boolean }): Promise<number> {
    if ('xlConfig' in spec)
      throw new DormouseError('CONFIG_INVALID', 'the embedded host boots guest programs, no kernels');
    return this.#connection.call('create', { spec, paused });
  }

  pause(domid: number): Promise<void> {
    return done(this.#connection.call('pause', { domid }));
  }

  unpause(domid: number): Promise<void> {
    return done(this.#connection.call('unpause', { domid }));
  }

  destroy(domid: number): Promise<void> {
    return done(this.#connection.call('destroy', { domid }));
  }

  async acquire(domid: number, operation: OperationKind): Promise<Lease> {
    const id = await this.#connection.call('acquire', { domid, operation });
    return new RemoteLease(this.#connection, id, domid);
  }

  async obstacles({ spec, neededKib }: DomainWanted): Promise<readonly Obstacle[]> {
    const found: Obstacle[] = [];
    try {
      checkSpec(spec);
    } catch (thrown) {
      const { code, message } = asDormouseError(thrown);
      found.push({ code, message });
    }
    const { freeBytes, guests } = await this.status();
    const taken = guests.find(({ name }) => name === spec.name);
    if (taken)
      found.push({ code: 'DOMAIN_EXISTS', message: `a domain '${spec.name}' exists (id ${taken.domid})` });
    if (neededKib * 1024 > freeBytes)
      found.push({
        code: 'NO_MEMORY',
        message: `its pages take ${neededKib} KiB, the host has ${Math.floor(freeBytes / 1024)} KiB free`,
      });
    const inUse = await this.#connection.call('diskObstacles', { config: spec.config });
    return [...found, ...inUse];
  }

  async build(spec: DomainSpec): Promise<{ lease: Lease; builder: Builder }> {
    const { lease: id, domid } = await this.#connection.call('build', { spec });
    const lease = new RemoteLease(this.#connection, id, domid);
    return { lease, builder: this.#builder(lease, 'build') };
  }

  async rewrite(lease: Lease, part?: RewritePart): Promise<Rewriter> {
    const id = this.#idOf(lease);
    const connection = this.#connection;
    // One request: the domain stands meanwhile, and each answer that is waited for takes its time.
    const { sharedInfoFrame, ports } = await connection.call('rewrite', {
      lease: id,
      part: part ? packed(part) : null,
      rings: part?.rings ?? null,
    });
    const builder = this.#builder({ id, domid: lease.domid }, 'rewrite');
    return {
      ...builder,
      sharedInfoFrame: () => Promise.resolve(sharedInfoFrame),
      ...(ports && { connectRings: () => Promise.resolve(ports) }),
      complete: ({ pins, state, release }) =>
        done(connection.call('completeRewrite', { lease: id, pins: [...pins], state, release })),
    };
  }

  openToRewrite(domid: number): Promise<MemoryView> {
    return this.#view(domid, { kind: 'rewrite', epoch: 0, readOnce: false });
  }

  async suspend(lease: Lease, timeoutMs: number): Promise<void> {
    await this.#connection.call('suspend', { lease: this.#idOf(lease), timeoutMs });
  }

  resumeInPlace(lease: Lease): Promise<void> {
    return this.#onLease('resumeInPlace', lease);
  }

  noteEnding(lease: Lease, ending: Ending): Promise<void> {
    return done(this.#connection.call('noteEnding', { lease: this.#idOf(lease), ending }));
  }

  holdPaused(lease: Lease): Promise<void> {
    return this.#onLease('holdPaused', lease);
  }

  releasePaused(lease: Lease): Promise<void> {
    return this.#onLease('releasePaused', lease);
  }

  captureStopped(lease: Lease, capture: StoppedCapture): Promise<Downtime> {
    return captureByCalls(this, lease, capture);
  }

  async snapshot(
    lease: Lease,
    { readOnce = false, frozen }: { readOnce?: boolean; frozen?: (() => void) | undefined } = {},
  ): Promise<Snapshot> {
    if (!frozen) return this.#snapshot(lease, readOnce);
    const startedMs = performance.now();
    await this.holdPaused(lease);
    let held: Snapshot | undefined;
    try {
      held = await this.#snapshot(lease, readOnce);
      frozen();
    } catch (thrown) {
      // The first error is the one to tell.
      await held?.release().catch(() => undefined);
      await this.releasePaused(lease).catch(() => undefined);
      throw thrown;
    }
    await this.releasePaused(lease);
    return { ...held, pauseNs: Math.round((performance.now() - startedMs) * 1e6) };
  }

  async #snapshot(lease: Lease, readOnce: boolean): Promise<Snapshot> {
    const id = this.#idOf(lease);
    const connection = this.#connection;
    const taking = connection.call('snapshot', { lease: id });
    // Asked at once, and answered in this order: it is of after the snapshot.
    const layout = connection.call('layout', { domid: lease.domid });
    layout.catch(() => undefined);
    const { epoch, pauseNs, dirty, geometry, state } = await taking;
    const open = async (): Promise<MemoryView> =>
      this.#views.open(await layout, { kind: 'snapshot', epoch, readOnce });
    const memory = await open().catch(async (thrown: unknown) => {
      await connection.call('releaseSnapshot', { lease: id, epoch });
      throw thrown;
    });
    return {
      memory,
      geometry,
      state,
      pauseNs,
      dirty,
      cowPages: () => connection.call('cowPages', { lease: id, epoch }),
      release: async () => {
        memory.close();
        await connection.call('releaseSnapshot', { lease: id, epoch });
      },
    };
  }

  geometry(domid: number): Promise<MemoryGeometry> {
    return this.#connection.call('geometry', { domid });
  }

  openMemory(domid: number): Promise<MemoryView> {
    return this.#view(domid, { kind: 'live', epoch: 0, readOnce: false });
  }

  readState(domid: number): Promise<DomainState> {
    return this.#connection.call('readState', { domid });
  }

  async coreState(domid: number): Promise<CoreState> {
    const { vcpus, sharedInfo } = await this.readState(domid);
    return {
      contexts: vcpus.map(({ basic }) => basic),
      sharedInfo,
      hypervisor: hypervisorNote('dormouse-embedded'),
    };
  }

  async tracker(lease: Lease): Promise<Tracker> {
    const id = this.#idOf(lease);
    await this.#onLease('trackerOn', lease);
    return {
      readAndClear: () => this.#connection.call('trackerRead', { lease: id, clear: true }),
      prepare: () => Promise.resolve(),
      peek: () => this.#connection.call('trackerRead', { lease: id, clear: false }),
      off: () => this.#onLease('trackerOff', lease),
    };
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    const tell = numbered(listener);
    const take = (event: HostEvent): void => {
      if (event.kind === 'domain') tell(event.domain);
    };
    return this.#connection.onEvent(take, () => tell({ type: 'lost' }));
  }

  async close(): Promise<void> {
    this.#views.close();
    await this.#connection.close();
  }

  /** What the host's own process says of itself. */
  status(): Promise<HostReport> {
    return this.#connection.call('status', {});
  }

  /** How far the guest's program has come. */
  progress(domid: number): Promise<GuestProgress> {
    return this.#connection.call('progress', { domid });
  }

  /** For tests: stores a raw entry into a page table past all validation, as a foreign MFN gets into one. */
  poke(domid: number, pfn: number, index: number, entry: bigint): Promise<void> {
    return done(this.#connection.call('poke', { domid, pfn, index, entry: String(entry) }));
  }

  /** For tests: gives frames to pfns that have none, or takes them away, as if the guest had asked for it. */
  balloon(domid: number, first: number, count: number, up: boolean): Promise<void> {
    return done(this.#connection.call('balloon', { domid, first, count, up }));
  }

  /** For tests: what the domain's dirty log leaves out from now on. */
  setUnlogged(domid: number, what: Unlogged): Promise<void> {
    return done(this.#connection.call('setUnlogged', { domid, ...what }));
  }

  /** For tests: how the backend of the domain's first, second, ... device behaves from now on; its disks come first. */
  setBackend(domid: number, index: number, how: Partial<BackendBehaviour>): Promise<void> {
    return done(this.#connection.call('setBackend', { domid, index, ...wellBehaved, ...how }));
  }

  /** For tests: a live view through what the xen host keeps of a domain. */
  async openMemoryAsXen(domid: number, translated: boolean): Promise<MemoryView> {
    const { p2mFrames } = await this.geometry(domid);
    return this.#views.openAsXen(await this.#connection.call('layout', { domid }), translated, p2mFrames);
  }

  async #view(
    domid: number,
    request: { kind: MemoryView['kind']; epoch: number; readOnce: boolean },
  ): Promise<MemoryView> {
    return this.#views.open(await this.#connection.call('layout', { domid }), request);
  }

  async #onLease(op: LeaseOp, lease: Lease): Promise<void> {
    await this.#connection.call(op, { lease: this.#idOf(lease) });
  }

  #idOf(lease: Lease): number {
    if (lease instanceof RemoteLease && lease.connection === this.#connection) return lease.id;
    throw new DormouseError('INTERNAL', 'the lease is of another host');
  }

  #builder({ id, domid }: { id: number; domid: number }, kind: 'build' | 'rewrite'): Builder {
    const connection = this.#connection;
    return {
      domid,
      setGeometry: (geometry) => done(connection.call('setGeometry', { lease: id, geometry })),
      populate: (runs) => done(connection.call('populate', { lease: id, runs: packNumbers(runs.flat()) })),
      openMemory: () => this.#view(domid, { kind, epoch: 0, readOnce: false }),
      frames: async (pfns) => {
        const packed = await connection.call('frames', { lease: id, pfns: packNumbers(pfns) });
        return unpackNumbers(packed, -1).map((mfn) => (mfn < 0 ? null : mfn));
      },
      sharedInfoFrame: () => connection.call('sharedInfoFrame', { lease: id }),
      connectRings: (rings) => connection.call('connectRings', { lease: id, ...rings }),
      pin: (tables) => done(connection.call('pin', { lease: id, tables: [...tables] })),
      setState: (state) => done(connection.call('setState', { lease: id, state })),
      finish: () => done(connection.call('finish', { lease: id })),
    };
  }
}

const packed = ({
  geometry: { p2mFrames, ...geometry },
  gained,
  lost,
  tables,
  unpinned,
}: RewritePart): OpArgs<'rewrite'>['part'] => ({
  geometry,
  p2mFrames: packNumbers(p2mFrames),
  gained: packNumbers(gained.flat()),
  lost: packNumbers(lost.flat()),
  tables: packNumbers(tables),
  unpinned: packNumbers(unpinned),
});

async function done(reply: Promise<null>): Promise<void> {
  await reply;
}

/** The host contract on real Xen. Building domains goes through libxl; the rest through the hypervisor's own interface. */
import { notice as toStderr } from '../../notice.js';
import { randomBytes } from 'node:crypto';
import { asDormouseError, DormouseError } from '../../errors.js';
import { native, nativeCall, nativePromise } from '../../addon.js';
import { steps } from '../../worker/steps.js';
import type {
  Builder,
  BuildOptions,
  Capabilities,
  DomainDisk,
  DomainEvent,
  DomainSpec,
  DomainWanted,
  Ending,
  Host,
  ImageToBuild,
  Lease,
  MemoryView,
  Obstacle,
  OperationKind,
  Rewinder,
  RewindTarget,
  Snapshot,
  StoppedCapture,
  Tracker,
  XlDomain,
} from '../contract.js';
import { captureByCalls } from '../capture_by_calls.js';
import { refuseControlDomain } from './control_domain.js';
import { noShadow, XenLog } from './dirty_log.js';
import { domainDisks, sharedDisks } from './disks.js';
import { domainConfig } from './domain_config.js';
import { domainType, hasFlag, shutdownReason, uuidOf } from './domain_flags.js';
import { watchEvents } from './events.js';
import { buildThroughXl } from './build_job.js';
import { savedLine, type Undoable, XenLease, XenLeases } from './leases.js';
import { loadXen, type NativeDomain, watcherPath, type XenNative } from './native.js';
import { xenObstacles } from './obstacles.js';
import { refuseOtherSaver } from './other_saver.js';
import { continueMonitor, findMonitor, type Monitor, stopMonitor } from './monitor.js';
import { beginRewinding, openRewriter, rewindObstacles, type RewindWanted } from './rewinding.js';
import { ringEnds, ringPfns, tiesBefore } from './ties.js';
import { configWithDisks } from './new_disks.js';
import { XenPauses } from './pauses.js';
import { suspendGuest } from './suspend.js';
import { xl, xlCreate, xlDryRun } from './xl.js';
import { XenXenstore } from './xenstore.js';
import type { XenMemoryHandle, XenRewriterHandle } from '../../handle.js';
import { noFrame } from '../../pfn/page_words.js';
import { requireName, selectDomain } from '../../domain/selector.js';
import type { Downtime } from '../../domain/operation.js';
import type { CoreState, DomainInfo, DomainState, MemoryGeometry } from '../../domain/state.js';

const noSnapshots = 'Xen has no copy-on-write snapshot of a PV domain';
/** Apart from the files of embedded hosts, which this machine may have as well. */
const xenRunDir = '/run/dormouse/xen';
/** XEN_SYSCTL_PHYSCAP_shadow */
const shadowPaging = 1 << 4;

export interface XenHostOptions {
  /** Where leases are kept; /run/dormouse/xen. */
  readonly runDir?: string;
  /** Told of what was undone of a process that died; standard error by default. */
  readonly notice?: (text: string) => void;
}

/** HOST_UNAVAILABLE saying why where this machine is no Xen control domain or the xen host is not built for it. */
export async function openXenHost(options: XenHostOptions = {}): Promise<XenHost> {
  const { api, release } = loadXen();
  const notice = options.notice ?? toStderr;
  const leases = new XenLeases(options.runDir ?? xenRunDir, watcherPath(release), notice);
  await leases.undoAllOfDead();
  return new XenHost(api, release, await XenXenstore.open(notice), leases, notice);
}

const stoppedMonitor = ({ pid, startTime }: Monitor): Undoable => `monitor ${pid} ${startTime}`;

export class XenHost implements Host {
  readonly description: string;
  readonly kind = 'xen';
  readonly xenstore: XenXenstore;
  readonly configWithDisks = configWithDisks;
  readonly #api: XenNative;
  readonly #leases: XenLeases;
  readonly #pauses: XenPauses;
  /** Memories kept mapped as long as the lease of their domain. */
  readonly #mapped = new Map<number, XenMemoryHandle>();
  readonly #held = new Map<number, XenLease>();
  /** Of views that were opened to be written to. */
  readonly #rewriters = new Map<number, XenRewriterHandle>();
  /** Stopped while their domain is suspended; null where none was found. */
  readonly #monitors = new Map<number, Monitor | null>();
  readonly #notice: (text: string) => void;

  constructor(
    api: XenNative,
    release: string,
    xenstore: XenXenstore,
    leases: XenLeases,
    notice: (text: string) => void,
  ) {
    this.#api = api;
    this.#leases = leases;
    this.#pauses = new XenPauses(api, notice);
    this.#notice = notice;
    this.xenstore = xenstore;
    this.description = `Xen ${release.replace('_', '.')}`;
  }

  capabilities(): Promise<Capabilities> {
    return nativeCall(() => ({
      'light-suspend-point': 'Xen cannot bring a guest to its suspend point without the shutdown bit',
      'cow-snapshot': noSnapshots,
      'log-dirty': (this.#api.capabilities() & shadowPaging) !== 0 ? true : noShadow,
      'cooperative-suspend': true,
      rewrite: true,
      create: true,
      'xl-config': true,
    }));
  }

  async list(): Promise<DomainInfo[]> {
    return Promise.all(native(() => this.#api.domains()).map((domain) => this.#describe(domain)));
  }

  async info(domid: number): Promise<DomainInfo> {
    return this.#describe(native(() => this.#api.domain(domid)));
  }

  async find(selector: string): Promise<DomainInfo> {
    return selectDomain(await this.list(), selector);
  }

  async config(domid: number): Promise<string> {
    const uuid = uuidOf(native(() => this.#api.domain(domid)).handle);
    // Begun first: xl, too, waits for a xenstored that does not answer.
    const answered = this.xenstore.read(`/local/domain/${domid}/name`);
    answered.catch(() => undefined);
    try {
      return await domainConfig(domid, uuid);
    } catch (thrown) {
      await answered;
      throw thrown;
    }
  }

  disks(domid: number): Promise<readonly DomainDisk[]> {
    return domainDisks(this.xenstore, domid);
  }

  async sharedDisks(domid: number): Promise<readonly Obstacle[]> {
    return sharedDisks(this.xenstore, domid, new Set((await this.list()).map((one) => one.domid)));
  }

  async create(domain: DomainSpec | XlDomain, options: { paused: boolean }): Promise<number> {
    if (!('xlConfig' in domain))
      throw new DormouseError('CONFIG_INVALID', "on Xen a domain is created from xl's settings");
    requireName(domain.name);
    this.#refuseTaken(domain.name, await this.list());
    await xlCreate(domain.xlConfig, options.paused);
    const made = (await this.list()).find(({ name }) => name === domain.name);
    if (!made)
      throw new DormouseError('DOMAIN_NOT_FOUND', `domain '${domain.name}' ended as soon as it was made`);
    return made.domid;
  }

  pause(domid: number): Promise<void> {
    return nativeCall(() => {
      refuseControlDomain(domid);
      this.#api.pause(domid);
    });
  }

  unpause(domid: number): Promise<void> {
    return nativeCall(() => this.#api.unpause(domid));
  }

  async destroy(domid: number): Promise<void> {
    refuseControlDomain(domid);
    native(() => this.#api.domain(domid));
    // A mapping of its pages would keep the domain as a zombie.
    this.#unmap(domid);
    // From here on it must not run again: its image may be complete.
    this.#held.get(domid)?.note('destroy');
    await xl(['destroy', String(domid)]);
    this.#leases.marks.remove(domid);
    const held = this.#held.get(domid);
    if (held) this.#continueMonitor(held);
    held?.strikeAll();
  }

  /** As libxl does: Xen's streams, and so what a new domain is built from, do not say which memory is on which node. */
  #refuseVnuma(domid: number): void {
    if (!native(() => this.#api.hasVnuma(domid))) return;
    throw new DormouseError(
      'HOST_LACKS',
      `domain ${domid} has virtual NUMA nodes (vnuma), which no image holds`,
      {
        place: { domid },
      },
    );
  }

  async acquire(domid: number, operation: OperationKind): Promise<Lease> {
    refuseControlDomain(domid);
    if (operation === 'save' || operation === 'checkpoint') this.#refuseVnuma(domid);
    refuseOtherSaver(domid);
    const uuid = uuidOf(native(() => this.#api.domain(domid)).handle);
    const lease = await this.#leases.acquire(domid, uuid, operation, () => {
      this.#held.delete(domid);
      this.#monitors.delete(domid);
      this.#unmap(domid);
    });
    this.#held.set(domid, lease);
    return lease;
  }

  async obstacles(wanted: DomainWanted): Promise<readonly Obstacle[]> {
    return xenObstacles(this.#api, this.xenstore, await this.list(), wanted);
  }

  readXlConfig(xlConfig: string): Promise<string> {
    return xlDryRun(xlConfig);
  }

  build(): Promise<{ lease: Lease; builder: Builder }> {
    return Promise.reject(
      new DormouseError(
        'HOST_LACKS',
        'on Xen domains are built by libxl, with this program as its save helper',
      ),
    );
  }

  #refuseTaken(wanted: string, there: readonly DomainInfo[]): void {
    if (there.some(({ name }) => name === wanted))
      throw new DormouseError('DOMAIN_EXISTS', `there is a domain named '${wanted}'`);
  }

  async buildFromImage(spec: DomainSpec, image: ImageToBuild, options: BuildOptions): Promise<number> {
    requireName(spec.name);
    const lease = await this.#leases.acquireBuild(spec.uuid);
    try {
      const there = await this.list();
      this.#refuseTaken(spec.name, there);
      const twins = there.filter(({ uuid }) => uuid === spec.uuid);
      lease.note('build', ...twins.map(({ domid }) => `was ${domid}` as const));
      return await buildThroughXl(spec, image, options, lease);
    } finally {
      await lease.release().catch(() => undefined); // A domain that is there stays; another error is the one to tell.
    }
  }

  async suspend(lease: Lease, timeoutMs: number): Promise<void> {
    const held = this.#heldBy(lease);
    const { domid } = held;
    const info = native(() => this.#api.domain(domid));
    if (shutdownReason(info.flags) !== null)
      throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} has shut down already`, {
        place: { domid },
      });
    if (hasFlag(info.flags, 'paused'))
      throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} is paused and cannot answer`, {
        place: { domid },
      });
    await this.#stopMonitor(held);
    const word = randomBytes(8).toString('hex');
    held.note(`suspend ${word}`);
    try {
      const wait = {
        ...{ api: this.#api, domid, isHeld: () => !held.isReleased },
        whole: (ask: () => Promise<void>) => held.whole(ask),
      };
      await suspendGuest(wait, this.xenstore, word, timeoutMs);
      held.note('suspended');
    } catch (thrown) {
      // Withdrawn: nothing is left to undo. Else the request may still be taken, which the lease's end sees to.
      if (asDormouseError(thrown).guest === 'resumed') {
        held.strikeKind('suspend');
        this.#continueMonitor(held);
      }
      throw thrown;
    }
  }

  async resumeInPlace(lease: Lease): Promise<void> {
    const held = this.#heldBy(lease);
    const { domid } = held;
    if (shutdownReason(native(() => this.#api.domain(domid)).flags) !== 'suspend')
      throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} is not suspended`, { place: { domid } });
    native(() => this.#api.resumeInPlace(domid));
    await this.xenstore.resumeDomain(domid);
    held.strikeKind('suspend', 'suspended', 'saved');
    if (this.#monitors.get(domid) === null)
      this.#notice(`domain ${domid}: no xl process watches it: nothing will act on its crash or reboot`);
    this.#continueMonitor(held);
  }

  noteEnding(lease: Lease, ending: Ending): Promise<void> {
    return nativeCall(() => this.#heldBy(lease).note(savedLine(ending)));
  }

  async holdPaused(lease: Lease): Promise<void> {
    const held = this.#heldBy(lease);
    const { domid } = held;
    const rings = this.#rewriters.has(domid) ? await ringEnds(this.xenstore, domid) : null;
    return nativeCall(() => {
      this.#pauses.hold(held, this.#mapped.get(domid) ?? null, rings);
    });
  }

  async captureStopped(lease: Lease, capture: StoppedCapture): Promise<Downtime> {
    // There is no pause to be made short, and the journal must tell ours from the other one.
    const { domid } = lease;
    if (this.#pauses.isPaused(domid)) return captureByCalls(this, lease, capture);
    const held = this.#heldBy(lease);
    const { tracker } = capture;
    const mapped = this.#mapped.get(domid);
    if (mapped === undefined || !(tracker === null || tracker instanceof XenLog))
      throw new DormouseError('INTERNAL', `domain ${domid} is not followed`, { place: { domid } });
    const [ties, eventPages] = await Promise.all([
      tiesBefore(this.xenstore, domid),
      tracker?.eventPages ?? nativePromise(() => this.#api.eventPages(mapped)),
    ]);
    const ends = { ...ties, eventPages: BigUint64Array.from(eventPages, BigInt) };
    return nativeCall(() => this.#pauses.capture(held, mapped, capture, ends));
  }

  releasePaused(lease: Lease): Promise<void> {
    return nativeCall(() => {
      const held = this.#heldBy(lease);
      if (!held.hasKind('pause')) return;
      this.#api.unpause(held.domid);
      held.strikeKind('pause');
    });
  }

  snapshot(): Promise<Snapshot> {
    return Promise.reject(new DormouseError('HOST_LACKS', noSnapshots));
  }

  geometry(domid: number): Promise<MemoryGeometry> {
    return nativeCall(() => this.#api.geometry(domid));
  }

  async openMemory(domid: number): Promise<MemoryView> {
    const api = this.#api;
    const kept = this.#mapped.get(domid);
    const memory = await nativePromise(async () => {
      if (kept === undefined) return api.openMemory(domid);
      await api.refreshMemory(kept, false);
      return kept;
    });
    // Only a leased domain's mapping is kept: its lease says when to drop it.
    const lasting = this.#held.has(domid);
    if (lasting) this.#mapped.set(domid, memory);
    const handle = steps().adoptMemory(api.exportMemory(memory));
    return {
      handle,
      kind: 'live',
      refresh: (logged) => nativePromise(() => api.refreshMemory(memory, logged)),
      catchUp: (logged) => native(() => api.catchUpMemory(memory, logged)),
      close: () => {
        steps().releaseMemory(handle);
        if (!lasting) api.closeMemory(memory);
      },
    };
  }

  async openToRewrite(domid: number): Promise<MemoryView & { readonly alone: readonly number[] }> {
    const live = await this.openMemory(domid);
    const mapped = this.#mapped.get(domid);
    if (mapped === undefined) throw new DormouseError('INTERNAL', `domain ${domid} is not leased`);
    const open = async (): Promise<readonly [number[], Awaited<ReturnType<typeof openRewriter>>]> => {
      const isPv = domainType(native(() => this.#api.domain(domid))) === 'pv';
      const toPfn = (frame: number): number | null => {
        const pfn = steps().framesToPfns(live.handle, BigUint64Array.of(BigInt(frame)))[0] ?? noFrame;
        return pfn === noFrame ? null : Number(pfn);
      };
      const alone = await ringPfns(this.xenstore, domid, isPv ? toPfn : null);
      return [alone, await openRewriter(this.#api, domid, mapped)];
    };
    const [alone, { rewriter, view }] = await open().catch((thrown: unknown) => {
      live.close();
      throw thrown;
    });
    this.#rewriters.set(domid, rewriter);
    const close = (): void => {
      this.#rewriters.delete(domid);
      view.close();
      live.close();
    };
    return { ...live, handle: view.handle, kind: 'rewrite', alone, close };
  }

  rewindObstacles(domid: number, target: RewindTarget): Promise<readonly Obstacle[]> {
    return rewindObstacles(this.#wanted(domid, target));
  }

  #wanted(domid: number, target: RewindTarget): RewindWanted {
    const uuid = uuidOf(native(() => this.#api.domain(domid)).handle);
    const { marks } = this.#leases;
    return { api: this.#api, xenstore: this.xenstore, domid, uuid, marks, target };
  }

  rewind(lease: Lease, target: RewindTarget): Promise<Rewinder> {
    const held = this.#heldBy(lease);
    const { domid } = held;
    const rewriter = this.#rewriters.get(domid);
    if (rewriter === undefined)
      throw new DormouseError('INTERNAL', `the memory of domain ${domid} is not open to be rewritten`);
    const endLog = (): void => {
      if (!held.has('logdirty')) return;
      native(() => this.#api.logDirtyOff(domid));
      held.strike('logdirty');
    };
    const notice = this.#notice;
    return beginRewinding({ ...this.#wanted(domid, target), held, rewriter, endLog, notice });
  }

  readState(domid: number): Promise<DomainState> {
    return nativeCall(() => this.#api.readState(domid));
  }

  coreState(domid: number): Promise<CoreState> {
    return nativeCall(() => this.#api.coreState(domid));
  }

  async tracker(lease: Lease): Promise<Tracker> {
    const held = this.#heldBy(lease);
    const { nrPfns } = await this.geometry(held.domid);
    const memory = () => this.#mapped.get(held.domid);
    return XenLog.begin({ api: this.#api, held, nrPfns, memory, notice: this.#notice });
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    return watchEvents(this.xenstore, () => native(() => this.#api.domains()), listener);
  }

  async close(): Promise<void> {
    for (const lease of [...this.#held.values()]) await lease.release();
    this.xenstore.close();
  }

  async #stopMonitor(held: XenLease): Promise<void> {
    const monitor = findMonitor(held.domid);
    this.#monitors.set(held.domid, monitor);
    if (monitor === null) return;
    held.note(stoppedMonitor(monitor));
    await stopMonitor(monitor);
  }

  #continueMonitor(held: XenLease): void {
    const monitor = this.#monitors.get(held.domid);
    this.#monitors.delete(held.domid);
    if (!monitor) return;
    continueMonitor(monitor);
    held.strike(stoppedMonitor(monitor));
  }

  #heldBy(lease: Lease): XenLease {
    if (lease instanceof XenLease && !lease.isReleased) return lease;
    throw new DormouseError('INTERNAL', `the lease of domain ${lease.domid} has ended`);
  }

  #unmap(domid: number): void {
    const memory = this.#mapped.get(domid);
    if (memory === undefined) return;
    this.#mapped.delete(domid);
    this.#api.closeMemory(memory);
  }

  async #describe(domain: NativeDomain): Promise<DomainInfo> {
    const { domid, flags, vcpus, cpuTimeNs } = domain;
    const home = `/local/domain/${domid}`;
    const [name, staticMax] = await Promise.all([
      this.xenstore.read(`${home}/name`),
      this.xenstore.read(`${home}/memory/static-max`),
    ]);
    return {
      domid,
      name: name ?? '(null)',
      uuid: uuidOf(domain.handle),
      type: domainType(domain),
      memoryKib: (domain.outstandingPages + domain.pages) * 4,
      maxMemoryKib: staticMax !== null && /^\d+$/.test(staticMax) ? Number(staticMax) : domain.maxPages * 4,
      vcpus,
      running: hasFlag(flags, 'running'),
      blocked: hasFlag(flags, 'blocked'),
      paused: hasFlag(flags, 'paused'),
      dying: hasFlag(flags, 'dying'),
      shutdown: shutdownReason(flags),
      building: false,
      rewinding: this.#leases.marks.has(domid, uuidOf(domain.handle)),
      cpuTimeNs,
    };
  }
}

/**
 * The host contract: what save, restore, checkpoint and digest ask of a host. Two hosts implement it, `embedded` and
 * `xen`; no engine file asks which one it has, only what it is capable of. The memory half is native/host/host.h.
 *
 * All ids are plain numbers. A pfn list travels as runs `[first, count]`. State blobs have Xen's public layouts
 * (vcpu_guest_context of 5168 bytes and so on) and hold MFNs as the host sees them; src/domain turns them into PFNs.
 */
import type { Buffer } from 'node:buffer';
import type { DormouseError } from '../errors.js';
import type { Progress } from '../domain/progress.js';
import type { Downtime } from '../domain/operation.js';
import type { LiveHandle, MemoryHandle } from '../handle.js';
import type { GuestCpu } from '../domain/cpu_policy.js';
import type { ErrorCode } from '../errors.js';
import type { CoreState, DomainInfo, DomainState, MemoryGeometry, ShutdownReason } from '../domain/state.js';
import type { DomainType } from '../domain/type.js';

/** What a new domain is to be. `program` is the embedded host's guest program; a real host ignores it. */
export interface DomainSpec {
  readonly name: string;
  readonly uuid: string;
  readonly type: DomainType;
  readonly maxMemoryKib: number;
  readonly vcpus: number;
  /** Those that are to run; all of them where it is missing. */
  readonly onlineVcpus?: readonly number[];
  /** Carried through images untouched (xl's JSON configuration, or the embedded host's own). */
  readonly config: string;
}

/** What a new domain is to be on a host that has `xl-config`: the text of an xl.cfg(5), which the host's own tools judge. */
export interface XlDomain {
  readonly name: string;
  readonly xlConfig: string;
}

export type CapabilityName =
  | 'light-suspend-point'
  | 'cow-snapshot'
  | 'log-dirty'
  | 'cooperative-suspend'
  | 'rewrite'
  | 'create'
  | 'xl-config';
/** true, or the reason why not ("log-dirty: hypervisor built without shadow paging"). */
export type Capabilities = Readonly<Record<CapabilityName, true | string>>;

/**
 * A view of a domain's memory, registered natively: `handle` is what worker threads pass to the addon's steps.
 * `live` sees memory as it changes, `snapshot` as it was when taken, `build` and `rewrite` may be written.
 */
export interface MemoryView {
  readonly handle: MemoryHandle;
  readonly kind: 'live' | 'snapshot' | 'build' | 'rewrite';
  /**
   * Brings a live view of a running domain up to date with frames it gained, lost or moved since. Nothing may use the
   * handle meanwhile. `logged`: a tracker has been on since the view was opened, and all that it read went to the steps;
   * without one this may take as long as opening does. Absent where a view is always up to date.
   */
  refresh?(logged: boolean): Promise<void>;
  /** The same of a domain that stands still, by the least work that will do: the last reading goes to the steps next. */
  catchUp?(logged: boolean): void;
  /** Unmaps; every exit path calls it. Idempotent. */
  close(): void;
}

/** A copy-on-write snapshot, taken with the domain at its suspend point and without its shutdown bit. */
export interface Snapshot {
  readonly memory: MemoryView;
  readonly geometry: MemoryGeometry;
  readonly state: DomainState;
  /** Time during which no vCPU executed. */
  readonly pauseNs: number;
  /** What the tracker would have read at this point, which resets it in the same step; null where it is off. */
  readonly dirty: Buffer | null;
  /** Pages the host had to copy aside so far. */
  cowPages(): Promise<number>;
  /** Drops the snapshot and its copies. Idempotent. */
  release(): Promise<void>;
}

/** What a saved domain comes to once its image has its name. */
export interface Ending {
  readonly then: 'destroy' | 'pause';
  /** Of the image to be; absolute. */
  readonly path: string;
  /** By which that image is known: 32 hex digits. */
  readonly imageId: string;
}

export type OperationKind = 'save' | 'checkpoint' | 'restore' | 'rollback' | 'digest' | 'dump';

/**
 * The right to work on one domain, held by this process: a second one is refused with LOCKED. If the holder dies, the
 * host undoes what it left (resumes a suspended domain, unpauses what it paused, stops the tracker, drops snapshots,
 * removes a half-built domain), or does what `noteEnding` says.
 */
export interface Lease {
  readonly domid: number;
  /** Ends the lease and undoes what is still open. Idempotent. */
  release(): Promise<void>;
}

/** Which pfns of a domain have frames, and which. */
export interface DomainFrames {
  /** Size of the pfn space: before the first populate. */
  setGeometry(geometry: MemoryGeometry): Promise<void>;
  /**
   * Gives frames to the pfns of these runs. NO_MEMORY if there are not enough; then none was given. Of a domain that is rewritten
   * it is called once, and takes the frames of all other pfns away.
   */
  populate(runs: readonly (readonly [first: number, count: number])[]): Promise<void>;
  /** Machine frame of each pfn, or null where it has none. */
  frames(pfns: readonly number[]): Promise<(number | null)[]>;
  /** Machine frame of the shared info page, to be written into start info. */
  sharedInfoFrame(): Promise<number>;
}

/** What a domain holds beside its memory. */
export interface DomainRest {
  /** Ports and pages of xenstore and console ring for start info. PFNs come from the image's start info. */
  connectRings(rings: {
    storePfn: number;
    consolePfn: number;
  }): Promise<{ storePort: number; consolePort: number }>;
  /** Pins page tables: level 1–4 and pfn. The host validates them; PAGE_TABLE_INVALID with the pfn if it refuses. */
  pin(tables: readonly { readonly pfn: number; readonly level: 1 | 2 | 3 | 4 }[]): Promise<void>;
  /** Sets vCPUs, shared info and the rest; blobs hold MFNs. */
  setState(state: DomainState): Promise<void>;
}

/**
 * A domain that is filled: a new one, which is destroyed if the lease is lost before `finish`, or one that is rewritten in
 * place, which is then left paused and does not run before it has been rewritten whole.
 */
export interface Builder extends DomainFrames, DomainRest {
  readonly domid: number;
  /** The memory to write into; opened after populate. */
  openMemory(): Promise<MemoryView>;
  /** The domain is complete; a new one is left paused by the controller, an old one as paused as it was. */
  finish(): Promise<void>;
}

/** A disk of a domain, as its backend has it. */
export interface DomainDisk {
  /** As the guest's configuration calls it: "xvda". */
  readonly name: string;
  /** Absolute; of the file or block device behind it, links resolved. */
  readonly path: string;
  readonly kind: 'file' | 'block';
  readonly writable: boolean;
}

export type TablePin = Parameters<DomainRest['pin']>[0][number];

/** What of a domain is to be another; what is not named stays as it is, page types and pins too. */
export interface RewritePart {
  readonly geometry: MemoryGeometry;
  /** Pfns that get a frame, and that lose theirs: runs `[first, count]`. */
  readonly gained: readonly (readonly [first: number, count: number])[];
  readonly lost: readonly (readonly [first: number, count: number])[];
  /** Page tables that may be written to or are to be none: what they map counts for nothing until `complete`. */
  readonly tables: readonly number[];
  readonly unpinned: readonly number[];
  /** What `connectRings` will be asked, so that the answer comes with this one's; null for a domain without start info. */
  readonly rings: Parameters<DomainRest['connectRings']>[0] | null;
}

/** A domain that is rewritten in place, and goes on as the same domain. */
export interface Rewriter extends Builder {
  /**
   * `pin`, `setState` and `finish` in one: the tables of the part count again, and a guest at its suspend point goes on from there
   * as one whose suspend was cancelled, with its own ports. It runs on if it was the rewriting that had it left paused; with
   * `release` the lease's pause is taken back too.
   */
  complete(rest: {
    readonly pins: readonly TablePin[];
    readonly state: DomainState;
    readonly release: boolean;
  }): Promise<void>;
}

/** The instant that a domain is to go back to. */
export interface RewindTarget {
  /** Of the image, which was taken of the paused domain. */
  readonly state: DomainState;
  /** Disks that it writes to stay as they are now. */
  readonly keepDisks: boolean;
}

/** A domain off its devices, on its way back to an instant at which it was paused. Its frames stay where they are. */
export interface Rewinder {
  /** Puts its devices back: nothing of it was changed. A domain that was half rewound before stays that. */
  abandon(): Promise<void>;
  /**
   * From here on it is neither what it was nor what it is to be; its memory may be written to. Its log is read no more. After an error
   * it is as it was, or `rewinding`.
   */
  begin(): Promise<void>;
  /** After an error since then: DOMAIN_NOT_FOUND if the domain is gone, which is all there is to say then. */
  requireThere(): Promise<void>;
  /**
   * All pages are as they were: page tables, registers and what ties it to others follow, and its devices are put back. It is whole
   * then, and still paused. `state` holds machine frames.
   */
  complete(rest: { readonly pins: readonly TablePin[]; readonly state: DomainState }): Promise<void>;
}

/** A domain that an image is to become, for a look at what stands against it. */
export interface DomainWanted {
  readonly spec: DomainSpec;
  /** What its pages take. */
  readonly neededKib: number;
  readonly cpu: GuestCpu;
}

/** Why a domain cannot be made here and now. */
export interface Obstacle {
  readonly code: ErrorCode;
  readonly message: string;
}

/** An image on this machine whose header, footer, manifest and index were checked; its chunks are checked as they are placed. */
export interface ImageToBuild {
  readonly path: string;
  /** What its pages take. */
  readonly neededKib: number;
  /** Pfns that it may have: more is not believed of it. */
  readonly mostPfns: number;
  /** What it is known by, should the path lead to another one meanwhile. */
  readonly imageId: string;
  readonly root: string;
}

export interface BuildOptions {
  readonly paused: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/**
 * `created`: it is there; on Xen it may still be being built. `shutdown`: it runs no more, for `reason`; a domain that was resumed
 * and shuts down again is told again. `dying`: it was destroyed, and somebody still holds memory of it. `released`: it is gone, and its
 * domid free for another; `reason` is null then where it had not shut down.
 */
export interface DomainChange {
  readonly type: 'created' | 'shutdown' | 'dying' | 'released';
  /** 1, 2, 3 and so on for each listener. */
  readonly sequence: number;
  readonly domid: number;
  readonly uuid: string;
  readonly reason: ShutdownReason | null;
}

/** What happened meanwhile may not be told: `list` says how it is. Nothing may follow if the host itself is gone. */
export interface EventsLost {
  readonly type: 'lost';
  readonly sequence: number;
}

export type DomainEvent = DomainChange | EventsLost;

export interface Xenstore {
  read(path: string): Promise<string | null>;
  write(path: string, value: string): Promise<void>;
  list(path: string): Promise<string[]>;
  remove(path: string): Promise<void>;
  /**
   * Calls back with the path that changed, at once and then at each change, until the returned function is called. `ended`
   * is called once, and `changed` never after, if the connection ends first.
   */
  watch(
    path: string,
    changed: (path: string) => void,
    ended?: (error: DormouseError) => void,
  ): Promise<() => Promise<void>>;
  /** Runs `body` again until its transaction commits (at most 100 times, then LOCKED). */
  transaction<T>(body: (tx: Pick<Xenstore, 'read' | 'write' | 'list' | 'remove'>) => Promise<T>): Promise<T>;
}

/**
 * The host's own log of written pages. A page whose frame or type changed counts as written where the host can tell; who
 * needs certainty compares the types too.
 */
export interface Tracker {
  /** Domain-relative dirty bitmap, one bit a pfn, and its reset. */
  readAndClear(): Promise<Buffer>;
  /** Right before the domain is stopped: looks up what takes long and is wanted then. */
  prepare(): Promise<void>;
  /** Of a domain that stands still: with the pages that others than it may have written to past the log. */
  peek(): Promise<Buffer>;
  off(): Promise<void>;
}

/** What is captured of a domain that stands still for no more than that. */
export interface StoppedCapture {
  /** Of the domain, live; brought up to date in the pause. */
  readonly memory: MemoryView;
  /** Whose log says what changed; null where that is found by content. */
  readonly tracker: Tracker | null;
  /** Gets the pages that changed, if they are at most `maxPages`. */
  readonly live: LiveHandle;
  readonly maxPages: number;
  /** Called while the domain stands, once its pages are copied, with its state as the host has it; not if they were too many. */
  readonly standing: (state: DomainState) => void;
  /** Called while the domain stands, once its pages are safe: what it throws fails the capture, and the guest goes on. Synchronous. */
  readonly frozen?: () => void;
}

/** Calls take effect in the order in which they are made, without waiting for each other's answers; `suspend` apart. */
export interface Host {
  /** For messages only. */
  readonly description: string;
  /** Recorded in images: "embedded" or "xen". */
  readonly kind: 'embedded' | 'xen';
  capabilities(): Promise<Capabilities>;
  list(): Promise<DomainInfo[]>;
  /** DOMAIN_NOT_FOUND. */
  info(domid: number): Promise<DomainInfo>;
  /** By what a user wrote: digits are a domid, as for xl, anything else a name or uuid. DOMAIN_NOT_FOUND otherwise. */
  find(selector: string): Promise<DomainInfo>;
  /** The configuration string the domain was created with. */
  config(domid: number): Promise<string>;
  /** The disks that a domain has now, in order of their names. */
  disks(domid: number): Promise<readonly DomainDisk[]>;
  /** DISK_IN_USE for each disk that it writes to and that another domain has too. */
  sharedDisks(domid: number): Promise<readonly Obstacle[]>;

  /**
   * Boots a new domain from nothing: an XlDomain where the host has `xl-config`, else a spec with a guest program.
   * DOMAIN_EXISTS, CONFIG_INVALID.
   */
  create(domain: DomainSpec | XlDomain, options: { paused: boolean }): Promise<number>;
  pause(domid: number): Promise<void>;
  unpause(domid: number): Promise<void>;
  destroy(domid: number): Promise<void>;

  acquire(domid: number, operation: OperationKind): Promise<Lease>;
  /** What stands against such a domain here and now, as far as it can be seen without making one. */
  obstacles(wanted: DomainWanted): Promise<readonly Obstacle[]>;
  /**
   * The configuration that a spec of this host carries for the text of an xl.cfg(5), which the host's own tools judge; absent
   * where there is no `xl-config`. CONFIG_INVALID.
   */
  readXlConfig?(xlConfig: string): Promise<string>;

  /**
   * The same configuration with other files or devices behind the disks of these names; absent where none is known. CONFIG_INVALID for one
   * that has no such disk.
   */
  configWithDisks?(config: string, disks: ReadonlyMap<string, string>): string;

  /** An empty domain to be filled, under a lease of its own. DOMAIN_EXISTS if the name is taken. */
  build(spec: DomainSpec): Promise<{ lease: Lease; builder: Builder }>;

  /**
   * Makes a domain that the lease holds paused, or that was left half rewritten, ready to be filled anew in place: it keeps
   * its id, its frames and its ports. Absent where the host has no `rewrite`. With a part no more than that becomes another:
   * not of one that was left half rewritten. After an error it is as it was. DOMAIN_WRONG_STATE, NO_MEMORY.
   */
  rewrite?(lease: Lease, part?: RewritePart): Promise<Rewriter>;
  /**
   * Takes a domain that the lease holds paused, or that was left half rewound, off its devices, so that it can go back in place to an
   * image that was taken of it paused; what its backends wrote to it until then its log names afterwards. Absent where the host cannot.
   * After an error it is as it was, or `rewinding`. HOST_LACKS, HOST_UNAVAILABLE, DOMAIN_NOT_FOUND.
   */
  rewind?(lease: Lease, target: RewindTarget): Promise<Rewinder>;
  /** What stands against that, as far as it can be seen while the domain runs or is half rewound. */
  rewindObstacles?(domid: number, target: RewindTarget): Promise<readonly Obstacle[]>;
  /**
   * A view of a domain's memory that may be written to once `rewrite` or `rewind` returned; until then it is read. `alone`: pfns of
   * pages that are not gone back to, as others go on with them.
   */
  openToRewrite?(domid: number): Promise<MemoryView & { readonly alone?: readonly number[] }>;

  /**
   * A new domain of an image, on a host whose own toolstack creates domains and runs this program to fill them; absent
   * elsewhere. Returns the domid; after any error no domain is left. DOMAIN_EXISTS, CANCELLED, and restore's.
   */
  buildFromImage?(spec: DomainSpec, image: ImageToBuild, options: BuildOptions): Promise<number>;

  /** Asks the guest to suspend and waits until it has. SUSPEND_TIMEOUT after `timeoutMs`, the request withdrawn. */
  suspend(lease: Lease, timeoutMs: number): Promise<void>;
  /** Lets a suspended domain go on in place; its suspend call returns "cancelled". */
  resumeInPlace(lease: Lease): Promise<void>;
  /**
   * To be called before the image gets its name. From then on the lease's end, its holder's death included, looks for that
   * image: if it is there the domain is destroyed or left paused; if not it goes on. Destroying it or resuming it in place
   * ends this.
   */
  noteEnding(lease: Lease, ending: Ending): Promise<void>;
  /**
   * Controller pause that is undone with the lease. Of a domain that is open to be rewritten, when nothing that others answer is on its
   * way: DOMAIN_WRONG_STATE if there always is.
   */
  holdPaused(lease: Lease): Promise<void>;
  releasePaused(lease: Lease): Promise<void>;
  /**
   * A controller pause for as long as it takes to capture what changed: nothing is in it that could be done before or after. The
   * domain goes on when this returns or throws; what cannot be taken back then, the lease's end takes back.
   */
  captureStopped(lease: Lease, capture: StoppedCapture): Promise<Downtime>;
  /**
   * Pause, bring to the suspend point, copy-on-write from here, go on. HOST_LACKS without `cow-snapshot`. `readOnce`
   * promises that each page is read at most once, which spares the guest copying what was read already. With `frozen` (as of
   * StoppedCapture) the domain is held paused until that has returned.
   */
  snapshot(
    lease: Lease,
    options?: { readonly readOnce?: boolean; readonly frozen?: (() => void) | undefined },
  ): Promise<Snapshot>;

  geometry(domid: number): Promise<MemoryGeometry>;
  openMemory(domid: number): Promise<MemoryView>;
  /** Of a domain that is suspended or paused. */
  readState(domid: number): Promise<DomainState>;
  /** Of a domain that stands still, in whatever way it came to. */
  coreState(domid: number): Promise<CoreState>;
  tracker(lease: Lease): Promise<Tracker>;

  readonly xenstore: Xenstore;
  /** Calls back for each event until the returned function is called. */
  onEvent(listener: (event: DomainEvent) => void): () => void;
  /** Ends the connection; leases are released. */
  close(): Promise<void>;
}

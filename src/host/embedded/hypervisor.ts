/**
 * The native half of the embedded host, typed. Two namespaces of the addon:
 *
 * - `hypervisor`: used inside the host's own process. Each function is a short synchronous hypercall or toolstack call;
 *   vCPUs run on native threads. A machine is named by the handle `createMachine` gave.
 * - `embedded`: used in tool processes (or the same one). It maps the machine's memory through /proc/PID/fd/N and
 *   registers views, whose numbers the addon's steps take as memory handles.
 *
 * Errors are thrown as plain Errors with a `code` of src/errors.ts: wrap calls in `native()` of src/addon.ts. Unless said
 * otherwise a call on an unknown domid is DOMAIN_NOT_FOUND. A wrong type, a number out of its
 * range or a wrong handle is INTERNAL.
 */
import type { Buffer } from 'node:buffer';
import { addon } from '../../addon.js';
import type { MemoryGeometry, ShutdownReason } from '../../domain/state.js';
import type { RewritePart, TablePin } from '../contract.js';
import type { MachineHandle, MappedMachineHandle, MemoryHandle } from '../../handle.js';

/** Given out by `createMachine`. */
export type MachineId = MachineHandle;

export interface MachineOptions {
  /** Machine memory in frames of 4096 bytes, at least 1024. Sparse: costs nothing until used. */
  readonly frames: number;
  /** Orders the frames that are handed out; below 2^32. Machines of different seeds give different MFNs. */
  readonly seed: number;
}

export interface MachineInfo {
  readonly frames: number;
  readonly freeFrames: number;
  /** Freed while a snapshot still names them; free again when it is released. */
  readonly quarantinedFrames: number;
}

/** What a tool needs to map the machine. Plain data: send it as JSON. The fds are those of process `pid`. */
export interface MachineLayout {
  readonly pid: number;
  readonly frames: number;
  readonly memoryFd: number;
  readonly m2pFd: number;
  readonly statesFd: number;
  readonly touchedFd: number;
}

/** What a tool needs to map one domain's p2m, its frozen copy, and its copy-on-write store. */
export interface DomainLayout {
  readonly nrPfns: number;
  readonly metaFd: number;
  readonly metaSnapFd: number;
  readonly cowFd: number;
}

export interface ShellOptions {
  /** Chosen by the caller, 1 to 32751 and not in use (else DOMAIN_EXISTS). */
  readonly domid: number;
  /** 'pvh' domains have no page tables of Xen's form: every type is NOTAB. They are built and held, never run. */
  readonly type: 'pv' | 'pvh';
  /** 1 to 8. */
  readonly vcpus: number;
  /** Most frames the domain may own. */
  readonly maxPages: number;
}

export type GuestProgram = 'idle' | 'counter' | 'writer' | 'churner' | 'crasher' | 'disker' | 'talker';
export const guestPrograms: readonly GuestProgram[] = [
  'idle',
  'counter',
  'writer',
  'churner',
  'crasher',
  'disker',
  'talker',
];

/** A guest to boot. Its memory after N steps depends on these values only. */
export interface GuestOptions {
  readonly program: GuestProgram;
  /** Size of the pfn space, all populated; at least 256 + 64 per vCPU and at most `maxPages`. */
  readonly pages: number;
  /** Below 2^32. */
  readonly seed: number;
  /** Each vCPU blocks for ever after so many steps; 0 = runs on. */
  readonly steps: number;
  /** Steps per second of each vCPU; 0 = as fast as it can. A writer writes to one or two pages a step. */
  readonly rate: number;
  /** Writer: pages it writes to, all vCPUs together; 0 = all of its memory. */
  readonly workingSetPages: number;
  /** Writer: percent of the writes that go to the first tenth of the working set, 0 to 100. */
  readonly skewPercent: number;
  /** Percent of the pages that hold content at boot, 0 to 100; the rest are zero. */
  readonly fillPercent: number;
  /** Crasher: the step at which vCPU 0 crashes the domain. */
  readonly crashAt: number;
  /** Never answers a suspend request. */
  readonly deaf: boolean;
  readonly storePort: number;
  readonly consolePort: number;
}

export interface BootedGuest {
  readonly storePfn: number;
  readonly consolePfn: number;
  readonly storeMfn: number;
  readonly consoleMfn: number;
}

export interface NativeDomainInfo {
  readonly domid: number;
  readonly type: 'pv' | 'pvh';
  readonly vcpus: number;
  /** Frames it owns now, and the most it may own. */
  readonly pages: number;
  readonly maxPages: number;
  readonly nrPfns: number;
  /** Some vCPU executes. */
  readonly running: boolean;
  /** Every vCPU is blocked. */
  readonly blocked: boolean;
  /** Paused by the controller at least once more than unpaused. */
  readonly paused: boolean;
  readonly shutdown: ShutdownReason | null;
  readonly building: boolean;
  /** Processor time of the vCPU threads. */
  readonly cpuTimeNs: number;
  /** The active snapshot's epoch, 0 if none. */
  readonly snapshotEpoch: number;
  readonly logDirty: boolean;
  /** What the guest's kernel said when it crashed, else empty. */
  readonly crashText: string;
}

/**
 * Changes of a page that the dirty log leaves out: that it was given a frame, lost it, had its type changed, or was written
 * to by a backend.
 */
export interface Unlogged {
  readonly gained: boolean;
  readonly lost: boolean;
  readonly retyped: boolean;
  readonly granted: boolean;
}

/** A block device to be: its file is opened to see that it can be, and to learn its size. */
export interface DiskOptions {
  readonly name: string;
  readonly path: string;
  readonly writable: boolean;
  readonly port: number;
}

/** A network interface to be; its other end sends each frame back. */
export interface NetworkOptions {
  /** Six bytes. */
  readonly mac: Buffer;
  readonly port: number;
}

/** Of a device: the states of both ends as xenbus numbers them. */
export interface NativeDevice {
  readonly frontend: number;
  readonly backend: number;
  /** Grant references of its one or two rings, 0 where the frontend has none. */
  readonly ringRefs: readonly [number, number];
}

export interface NativeDisk extends NativeDevice {
  readonly sectors: number;
}

/** How badly a backend behaves: as backends on a loaded machine do, or worse. */
export interface BackendBehaviour {
  /** `requests`: it takes none; `answers`: it carries them out, and does not answer. */
  readonly holds: 'nothing' | 'requests' | 'answers';
  /** Between carrying out and answering. */
  readonly delayUs: number;
  /**
   * Of a disk: of the order in which requests are carried out; 0 = that of the ring. They are answered in that one.
   * Of a network: of which frames are lost, come twice or overtake others; 0 = none.
   */
  readonly seed: number;
  readonly neverCloses: boolean;
}

export interface HypervisorEvent {
  readonly domid: number;
  /**
   * 'suspend-ack': the guest took the request (control/shutdown is to be blanked).
   * 'shutdown': no vCPU executes any more; `reason` says why.
   * 'device': an end of a device is in another state.
   */
  readonly event: 'suspend-ack' | 'shutdown' | 'device';
  readonly reason: ShutdownReason | null;
}

export interface NativeSnapshot {
  /** Names the snapshot in `openView`, `cowPages` and `releaseSnapshot`. */
  readonly epoch: number;
  /** From the first stop request to the last release of a vCPU (0 for a domain that was already standing still). */
  readonly pauseNs: number;
  readonly geometry: MemoryGeometry;
  /** One vcpu_guest_context of 5168 bytes per vCPU, MFNs inside, vCPU 0 at its suspend hypercall. */
  readonly vcpus: readonly Buffer[];
  /** The 4096-byte shared info page. */
  readonly sharedInfo: Buffer;
  /** What logDirtyPeek would say at this point, where the log begins anew in the same step; null where it is off. */
  readonly dirty: Buffer | null;
}

export interface GuestProgress {
  /** Steps done, per vCPU. */
  readonly steps: readonly number[];
  /** Counter and crasher: the counter in guest memory, per vCPU. */
  readonly counters: readonly number[];
}

/** What of a domain is rewritten. */
export type NativePart = Omit<RewritePart, 'rings'>;

export interface HypervisorApi {
  /** NO_MEMORY if the address space or memfds cannot be had. Events arrive on the event loop and do not hold it open. */
  createMachine(options: MachineOptions, onEvent: (event: HypervisorEvent) => void): MachineId;
  /** Stops and frees every domain and unmaps. Tools that still map it keep their mappings. */
  destroyMachine(machine: MachineId): void;
  machineInfo(machine: MachineId): MachineInfo;
  machineLayout(machine: MachineId): MachineLayout;

  domids(machine: MachineId): number[];
  domainInfo(machine: MachineId, domid: number): NativeDomainInfo;
  /** Its fds are valid until the domain is destroyed; DOMAIN_WRONG_STATE before its geometry is set. */
  domainLayout(machine: MachineId, domid: number): DomainLayout;

  /** An empty domain in state `building`. DOMAIN_EXISTS. */
  createShell(machine: MachineId, options: ShellOptions): void;
  /** A block device for a shell that is to be filled: the first, the second, ... CONFIG_INVALID. */
  addDisk(machine: MachineId, domid: number, disk: DiskOptions): void;
  /** The same of a network interface. */
  addNetwork(machine: MachineId, domid: number, network: NetworkOptions): void;
  disks(machine: MachineId, domid: number): NativeDisk[];
  networks(machine: MachineId, domid: number): NativeDevice[];
  /** Asks all backends to close and says whether all have: to be asked again until then. Their files are closed then. */
  detachDevices(machine: MachineId, domid: number): boolean;
  /** Takes that back: backends serve again what their frontends have not been answered. */
  attachDevices(machine: MachineId, domid: number): void;
  /** For tests. The disks come first, then the networks. */
  setBackend(machine: MachineId, domid: number, index: number, how: BackendBehaviour): void;
  /** Builds the guest into an empty shell and leaves it complete and paused once. NO_MEMORY leaves the shell as it was. */
  boot(machine: MachineId, domid: number, guest: GuestOptions): BootedGuest;

  /**
   * A domain that stands still becomes as one in state `building`, but keeps its id, frames, ports and pauses; then populate
   * takes the frames of all other pfns away. With a part only that becomes another, and nothing is to be populated. On an error
   * nothing was done. DOMAIN_WRONG_STATE if it is not paused, has a snapshot or a device at work; NO_MEMORY.
   */
  beginRewrite(machine: MachineId, domid: number, part: NativePart | null): void;
  /** Takes the tables of the part again, and pins these. PAGE_TABLE_INVALID. */
  takeTables(machine: MachineId, domid: number, pins: readonly TablePin[]): void;
  /**
   * `finish` of a rewritten domain, which goes on from its suspend point as one whose suspend was cancelled. Backends serve what
   * its memory says was not answered. CONFIG_INVALID or DOMAIN_WRONG_STATE for a disk that is not there or of another size.
   */
  finishInPlace(machine: MachineId, domid: number): void;
  /** Sets the size of the pfn space; once, before the first populate. Kept until the guest publishes its own p2m. */
  setGeometry(machine: MachineId, domid: number, geometry: MemoryGeometry): void;
  /** Gives zeroed frames to pfns that have none. NO_MEMORY, or DOMAIN_WRONG_STATE for a pfn that has one: none is given. */
  populate(
    machine: MachineId,
    domid: number,
    runs: readonly (readonly [first: number, count: number])[],
  ): void;
  /** Machine frame of each pfn, or null. */
  frames(machine: MachineId, domid: number, pfns: readonly number[]): (number | null)[];
  /** Machine frame of the shared info page; it lies outside the pfn space. */
  sharedInfoFrame(machine: MachineId, domid: number): number;
  readSharedInfo(machine: MachineId, domid: number): Buffer;
  /** Exactly 4096 bytes. */
  writeSharedInfo(machine: MachineId, domid: number, page: Buffer): void;
  /** Validates and pins, in order. PAGE_TABLE_INVALID with the pfn of the table refused; those before it stay pinned. */
  pin(
    machine: MachineId,
    domid: number,
    tables: readonly { readonly pfn: number; readonly level: number }[],
  ): void;
  /** Drops a pin. DOMAIN_WRONG_STATE if it has none. */
  unpin(machine: MachineId, domid: number, pfn: number): void;
  /** A vcpu_guest_context of 5168 bytes holding MFNs; cr3 must be a validated L4 (pv), else PAGE_TABLE_INVALID. */
  setVcpu(machine: MachineId, domid: number, vcpu: number, context: Buffer): void;
  /** Of a domain that stands still (paused, shut down or building), else DOMAIN_WRONG_STATE. */
  getVcpu(machine: MachineId, domid: number, vcpu: number): Buffer;
  /** The domain is complete; it is left paused once. */
  finish(machine: MachineId, domid: number): void;

  /** Counted, as in Xen: returns when no vCPU executes. */
  pause(machine: MachineId, domid: number): void;
  /**
   * DOMAIN_WRONG_STATE if not paused. HOST_LACKS for a domain whose memory holds no guest program of this host. A new domain's
   * frontends connect to its devices: CONFIG_INVALID or DOMAIN_WRONG_STATE if they cannot, and it stays paused.
   */
  unpause(machine: MachineId, domid: number): void;
  /** Frees all; snapshot, views' contents and log-dirty are gone. */
  destroy(machine: MachineId, domid: number): void;

  /**
   * control/shutdown as the guest sees it. A guest that runs answers at once: event 'suspend-ack' (suspend only), then
   * 'shutdown'. One that is paused answers when unpaused; a deaf one never does.
   */
  shutdownRequest(machine: MachineId, domid: number, reason: 'suspend' | 'poweroff' | 'reboot'): void;
  /** Withdraws an unanswered request; false if there was none. */
  shutdownCancel(machine: MachineId, domid: number): boolean;
  /** Domain in shutdown `suspend` goes on in place; its suspend call returns 1, "cancelled". Else DOMAIN_WRONG_STATE. */
  resumeInPlace(machine: MachineId, domid: number): void;

  /** The guest's p2m as it published it, else what setGeometry said. */
  geometry(machine: MachineId, domid: number): MemoryGeometry;

  /**
   * Light suspend point and copy-on-write from there, in one call; the guest goes on as it was (running, or paused).
   * A domain that is suspended or has crashed is frozen as it is; a held one that is not a guest program of this host
   * stands at the suspend hypercall it was built at. DOMAIN_WRONG_STATE while building or while another snapshot is
   * active.
   */
  snapshot(machine: MachineId, domid: number): NativeSnapshot;
  /** Pages copied aside so far for the active snapshot (the last one if none is). */
  cowPages(machine: MachineId, domid: number): number;
  /** False if that epoch is not the active one. */
  releaseSnapshot(machine: MachineId, domid: number, epoch: number): boolean;

  /** From here on every page the guest changes is marked. DOMAIN_WRONG_STATE if it is on already. */
  logDirtyOn(machine: MachineId, domid: number): void;
  /**
   * One bit a pfn, bit 0 of byte 0 being pfn 0; a domain-wide view at one instant (no vCPU executes meanwhile). With the pages
   * that backends may write to, which they do while the domain stands.
   */
  logDirtyPeek(machine: MachineId, domid: number): Buffer;
  logDirtyReadAndClear(machine: MachineId, domid: number): Buffer;
  /** Idempotent. */
  logDirtyOff(machine: MachineId, domid: number): void;

  progress(machine: MachineId, domid: number): GuestProgress;
  /** For tests: stores a raw entry into a page table, past all validation (how a foreign MFN gets into one). */
  poke(machine: MachineId, domid: number, pfn: number, index: number, entry: bigint): void;
  /** For tests: gives frames to pfns that have none, or takes them away, as if the guest had asked for it. */
  balloon(machine: MachineId, domid: number, first: number, count: number, up: boolean): void;
  /** For tests: what the dirty log leaves out, as other hosts leave it out. */
  setUnlogged(machine: MachineId, domid: number, what: Unlogged): void;
}

export interface ViewOptions {
  readonly domain: DomainLayout;
  readonly kind: 'live' | 'snapshot' | 'build' | 'rewrite';
  /** The snapshot's epoch; 0 for the other kinds. */
  readonly epoch: number;
  /**
   * Snapshot only. True: each page is read at most once through this view, which frees the guest from copying what was
   * read. False: pages may be read again and again.
   */
  readonly consume: boolean;
}

export interface EmbeddedApi {
  /** Maps the machine once; kept across views. HOST_DIED if its process is gone, HOST_UNAVAILABLE if it may not be mapped. */
  openMachine(layout: MachineLayout): MappedMachineHandle;
  /** Idempotent. Views that are open keep the mapping alive. */
  closeMachine(handle: MappedMachineHandle): boolean;
  /** The memory handle that the addon's steps take. HOST_DIED if the domain or its host is gone. */
  openView(machine: MappedMachineHandle, view: ViewOptions): MemoryHandle;
  /**
   * For tests: a view of a domain that runs, through what the xen host keeps of one. `translated`: as one without page
   * tables of Xen's form. Else the p2m is read from the guest's pages `p2mPfns`.
   */
  openAsXen(
    machine: MappedMachineHandle,
    view: { readonly domain: DomainLayout; readonly translated: boolean; readonly p2mPfns: BigUint64Array },
  ): MemoryHandle;
  refreshAsXen(handle: MemoryHandle, logged: boolean): void;
  catchUpAsXen(handle: MemoryHandle, logged: boolean): void;
  /** Idempotent. */
  closeView(handle: MemoryHandle): boolean;
  /** Entries (`mfn | type << 60`) of pfns [first, first + count), count at most 1024, as 8-byte words. */
  readEntries(handle: MemoryHandle, first: number, count: number): Buffer;
  /** Pages of at most 1024 pfns, one after the other; those without a frame are zero. */
  readPages(handle: MemoryHandle, pfns: readonly number[]): Buffer;
  /** Writes at most 1024 pages of a `build` view. */
  writePages(handle: MemoryHandle, pfns: readonly number[], pages: Buffer): void;
}

export const hypervisor = (): HypervisorApi => addon('hypervisor') as HypervisorApi;
export const embedded = (): EmbeddedApi => addon('embedded') as EmbeddedApi;

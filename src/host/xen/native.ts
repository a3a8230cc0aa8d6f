/**
 * The native half of the xen host, typed, and the choice of the one for this hypervisor: each release of Xen has its own
 * addon, as the interface for control tools changes with every release.
 *
 * Functions throw plain Errors with a `code` of src/errors.ts: wrap calls in `native()` of src/addon.ts. A domid is 0 to
 * 32751; a call on an unknown one is DOMAIN_NOT_FOUND.
 */
import type { Buffer } from 'node:buffer';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { native, packageRoot } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import type { Downtime } from '../../domain/operation.js';
import type { CpuPolicy } from '../../domain/cpu_policy.js';
import type { CoreState, DomainLinks, DomainState, MemoryGeometry } from '../../domain/state.js';
import type { XenBuilderHandle, XenMemoryHandle, XenRewriterHandle } from '../../handle.js';

/** What XEN_DOMCTL_getdomaininfo says: `flags` are XEN_DOMINF_*, `emulation` is XEN_X86_EMU_*, pages are of 4096 bytes. */
export interface NativeDomain {
  readonly domid: number;
  /** The 16 bytes of its uuid. */
  readonly handle: Buffer;
  readonly flags: number;
  readonly emulation: number;
  readonly pages: number;
  readonly outstandingPages: number;
  readonly maxPages: number;
  /** Online ones. */
  readonly vcpus: number;
  readonly cpuTimeNs: number;
}

export interface NativeCapture extends Omit<Downtime, 'snapshotMs'> {
  /** vCPUs that stood right after `sti` or `mov ss` however often they were let on. */
  readonly inShadow: readonly number[];
}

/** What it knows of a domain's links. */
export type NativeLinks = Omit<DomainLinks, 'devices' | 'start'>;

/** Of the rings that every domain has; the frame is a machine frame (PV) or a pfn, 0 where xenstore names none. */
export interface RingEnds {
  readonly storeFrame: number;
  readonly storePort: number;
  readonly consolePort: number;
}

export interface XenNative {
  readonly domctlVersion: number;
  /** So many are found of a domain at most. */
  readonly mostEventPages: number;
  /** Opens the device nodes, once per process and before any other call. HOST_UNAVAILABLE. */
  open(): void;
  /** XEN_SYSCTL_PHYSCAP_* bits. */
  capabilities(): number;
  /** Pages of the machine that no domain has or was promised. */
  freePages(): number;
  /** What Xen was booted with. */
  commandLine(): string;
  /** All that a guest can be shown: of PV, or of HVM and PVH. */
  guestPolicy(hvm: boolean): CpuPolicy;
  domains(): NativeDomain[];
  domain(domid: number): NativeDomain;
  /** Whether it was given virtual NUMA nodes. */
  hasVnuma(domid: number): boolean;
  /** Counted by Xen; returns when no vCPU executes. */
  pause(domid: number): void;
  /**
   * The same where no vCPU is about to execute the one instruction after `sti` or `mov ss`, as far as `memory` shows its code, and with
   * `rings` where nothing asked of xenstore is on its way; tells whether it is. `stands`, one byte, is 1 for as long as the domain
   * stands by it: also after an error that could not be made good.
   */
  pauseOutsideShadow(
    domid: number,
    memory: XenMemoryHandle | null,
    stands: Uint8Array,
    rings: RingEnds | null,
  ): Pick<NativeCapture, 'inShadow'> & { readonly atRest: boolean };
  /**
   * Pauses, reads log and registers, does `work` (of the main addon's `exportCapture`, once), calls `standing` unless that was too much,
   * and unpauses: also after an error, if that can be; `stands` as above. What `standing` throws it throws. Each of `ringPages` is the
   * grant of a page of a device's ring, plus 2^32 if it is the first of a disk's.
   */
  captureStopped(
    domid: number,
    memory: XenMemoryHandle,
    work: unknown,
    eventPages: BigUint64Array,
    standing: (state: DomainState, links: NativeLinks) => void,
    stands: Uint8Array,
    rings: RingEnds,
    ringPages: BigUint64Array,
  ): NativeCapture;
  unpause(domid: number): void;
  /** A suspended domain goes on; its suspend call returns 1, "cancelled". */
  resumeInPlace(domid: number): void;
  /** HOST_LACKS where the hypervisor cannot, LOCKED where it is on or another tool is about to use it. */
  logDirtyOn(domid: number): void;
  /**
   * LOCKED, and left on, if another tool has taken it over. False if it was off already: what changed since somebody ended it
   * is not known.
   */
  logDirtyOff(domid: number): boolean;
  /**
   * One bit a pfn for the first `nrPfns`; `clean` resets them in the same step, `last` (the guest stands still) adds the
   * pages that Xen itself has mapped for writing. LOCKED as above.
   */
  logDirtyRead(domid: number, nrPfns: number, clean: boolean, last: boolean): Buffer;
  /**
   * Sets the bits of the pages that the log is silent on while others write to them: what other domains have mapped of it, and
   * what is Xen's own in it.
   */
  markSharedPages(domid: number, nrPfns: number, bitmap: Buffer): void;
  /** The pfns of pages that look like those in which Xen keeps the guest's event channels, past its log too. */
  eventPages(memory: XenMemoryHandle): Promise<number[]>;
  /** Maps all of the domain's memory, read-only. */
  openMemory(domid: number): Promise<XenMemoryHandle>;
  /** Brings the mapping up to date with the domain; nothing may use it meanwhile. `logged`: a dirty log names what came. */
  refreshMemory(memory: XenMemoryHandle, logged: boolean): Promise<void>;
  /** The same of a guest that stands still, by the least work. */
  catchUpMemory(memory: XenMemoryHandle, logged: boolean): void;
  /** For `adoptMemory` of the main addon, which takes over what is in it. */
  exportMemory(memory: XenMemoryHandle): unknown;
  /** Unmaps once nobody has adopted it any more. Idempotent. */
  closeMemory(memory: XenMemoryHandle): boolean;
  openMemories(): number;
  geometryOf(memory: XenMemoryHandle): MemoryGeometry;
  geometry(domid: number): MemoryGeometry;
  /** Of a domain that stands still. */
  readState(domid: number): DomainState;
  coreState(domid: number): CoreState;

  /** Work on a domain that was created and has not run. */
  builderOpen(domid: number): XenBuilderHandle;
  /** Bodies of X86_CPUID_POLICY and X86_MSR_POLICY; empty where there is none. IMAGE_INCOMPATIBLE. */
  builderSetPolicy(builder: XenBuilderHandle, cpuid: Buffer, msrs: Buffer): void;
  /** Bytes of a PV guest's words. */
  builderSetWidth(builder: XenBuilderHandle, width: number): void;
  /** Size of the pfn space; it may only grow. */
  builderSetNrPfns(builder: XenBuilderHandle, nrPfns: number): void;
  /** Gives frames to those of the pfns that have none. NO_MEMORY. */
  builderPopulate(builder: XenBuilderHandle, pfns: BigUint64Array): void;
  builderPopulateRun(builder: XenBuilderHandle, firstPfn: number, count: number): void;
  /** All of them have frames. */
  builderDepopulate(builder: XenBuilderHandle, pfns: BigUint64Array): void;
  /** For `adoptMemory`, as often as wanted. */
  builderExport(builder: XenBuilderHandle): unknown;
  /** In place; all ones where a pfn has no frame. */
  builderFrames(builder: XenBuilderHandle, pfns: BigUint64Array): BigUint64Array;
  builderSharedInfoFrame(builder: XenBuilderHandle): number;
  /** Unmaps and pins. PAGE_TABLE_INVALID with the pfn. */
  builderPin(builder: XenBuilderHandle, pfns: BigUint64Array, levels: Uint8Array): void;
  builderSetPvState(builder: XenBuilderHandle, state: DomainState): void;
  /** Returns the pfns of the two rings. */
  builderSetHvmState(
    builder: XenBuilderHandle,
    state: DomainState,
    storePort: number,
    consolePort: number,
  ): [store: number, console: number];
  builderSeedGrants(
    builder: XenBuilderHandle,
    storeFrame: number,
    storeDomid: number,
    consoleFrame: number,
    consoleDomid: number,
  ): void;
  builderUnmap(builder: XenBuilderHandle): void;
  /** Idempotent. */
  builderClose(builder: XenBuilderHandle): boolean;

  /** For each event channel of the domain a byte, as in DomainLinks. */
  channels(domid: number): Buffer;
  /** Of a domain whose memory is mapped: the same memory, to be written to once begun. */
  rewriterOpen(domid: number, memory: XenMemoryHandle): XenRewriterHandle;
  /** For `adoptMemory`. */
  rewriterExport(rewriter: XenRewriterHandle): unknown;
  /**
   * Of a domain whose backends are off: HOST_LACKS if somebody has mapped a grant that is to be another one, or has the other end of a
   * channel that is to be raised, or if a vCPU uses a local descriptor table.
   */
  rewriterCheckTies(rewriter: XenRewriterHandle, links: NativeLinks, rings: RingEnds): void;
  /** From here on the domain is none that could run. */
  rewriterBegin(rewriter: XenRewriterHandle): void;
  /** While the domain runs: finds out where it is told of events. */
  rewriterLook(rewriter: XenRewriterHandle): Promise<void>;
  /**
   * All pages are written: page tables, registers, grants; each channel of a device is raised once, and each vCPU's timer where it
   * could be found out how: returns why not, or an empty text. PAGE_TABLE_INVALID.
   */
  rewriterLand(
    rewriter: XenRewriterHandle,
    state: DomainState,
    links: NativeLinks,
    rings: RingEnds,
    pfns: BigUint64Array,
    levels: Uint8Array,
  ): string;
  /** Idempotent. */
  rewriterClose(rewriter: XenRewriterHandle): boolean;
}

const buildDir = join(packageRoot, 'build/Release');
const addonName = /^dormouse_xen_(\d+_\d+)\.node$/;

function unavailable(text: string): DormouseError {
  return new DormouseError('HOST_UNAVAILABLE', text);
}

/** The releases of Xen that this build is for, as "4_17". */
function builtReleases(): string[] {
  const names = existsSync(buildDir) ? readdirSync(buildDir) : [];
  return names.flatMap((name) => addonName.exec(name)?.[1] ?? []);
}

function readLine(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

/** The release of the hypervisor under this machine, as "4_17"; null where there is none. */
function runningRelease(): string | null {
  if (readLine('/sys/hypervisor/type') !== 'xen') return null;
  const [major, minor] = ['major', 'minor'].map((part) => readLine(`/sys/hypervisor/version/${part}`));
  return major && minor ? `${major}_${minor}` : null;
}

const dotted = (release: string): string => release.replace('_', '.');

/** In a package that npm installed, and in a clone. */
const rebuild = 'then `npm rebuild dormouse-xen` or, in a clone, `npm run build`';

/** The release to use. HOST_UNAVAILABLE saying all that is missing: the hypervisor, the addon, the right release of it. */
export function chooseRelease(built: readonly string[], running: string | null): string {
  const notBuilt = `the xen host is not built: apt-get install libxen-dev, ${rebuild}`;
  if (running === null)
    throw unavailable(
      built.length === 0
        ? `this machine does not run on Xen; besides, ${notBuilt}`
        : 'this machine does not run on Xen',
    );
  if (built.length === 0) throw unavailable(notBuilt);
  if (!built.includes(running))
    throw unavailable(
      `this machine runs Xen ${dotted(running)}, the xen host is built for ${built.map(dotted).join(', ')}: ` +
        `apt-get install libxen-dev of that release, ${rebuild}`,
    );
  return running;
}

let loaded: { readonly api: XenNative; readonly release: string } | undefined;

/** The addon for this machine's hypervisor, opened. HOST_UNAVAILABLE with the reason where there is none. */
export function loadXen(): { readonly api: XenNative; readonly release: string } {
  if (loaded) return loaded;
  const release = chooseRelease(builtReleases(), runningRelease());
  const capabilities = readLine('/proc/xen/capabilities');
  if (capabilities !== null && !capabilities.includes('control_d'))
    throw unavailable('this machine is a guest of Xen, not its control domain');
  let api: XenNative;
  try {
    const path = join(buildDir, `dormouse_xen_${release}.node`);
    api = createRequire(import.meta.url)(path) as XenNative;
  } catch (thrown) {
    const text = `the xen host cannot be loaded: ${(thrown as Error).message}`;
    throw new DormouseError('HOST_UNAVAILABLE', text, { cause: thrown });
  }
  native(() => api.open());
  loaded = { api, release };
  return loaded;
}

/** The helper that undoes what a dead process left open. */
export const watcherPath = (release: string): string => join(buildDir, `dormouse-xen-watcher-${release}`);

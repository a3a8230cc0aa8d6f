/** What is known of a domain: what it is, how its memory is laid out, and its state beside memory. */
import type { Buffer } from 'node:buffer';
import type { DomainType } from './type.js';

/** By their numbers in Xen (SHUTDOWN_*). */
export const shutdownReasons = ['poweroff', 'reboot', 'suspend', 'crash', 'watchdog', 'soft_reset'] as const;
export type ShutdownReason = (typeof shutdownReasons)[number];

/** One domain, as XEN_DOMCTL_getdomaininfo has it. `shutdown` is set only while the shutdown bit is. */
export interface DomainInfo {
  readonly domid: number;
  readonly name: string;
  readonly uuid: string;
  readonly type: DomainType;
  readonly memoryKib: number;
  readonly maxMemoryKib: number;
  readonly vcpus: number;
  readonly running: boolean;
  readonly blocked: boolean;
  readonly paused: boolean;
  readonly dying: boolean;
  readonly shutdown: ShutdownReason | null;
  /** True while a domain is being built and nothing of it has run. */
  readonly building: boolean;
  /** Building, of one that ran before: it goes back to an image and is neither what it was nor what it is to be. */
  readonly rewinding?: boolean;
  readonly cpuTimeNs: number;
}

export interface MemoryGeometry {
  /** Number of pfns: max_pfn + 1. */
  readonly nrPfns: number;
  /** 4 or 8 bytes a word; 0 for a domain without its own page tables in Xen's form. */
  readonly guestWidth: 4 | 8 | 0;
  /** PFNs of the frames that hold the leaf level of the guest's own p2m (PV only, else empty). */
  readonly p2mFrames: readonly number[];
  /** p2m_generation at the time of the call, where the guest has one. */
  readonly p2mGeneration: number;
}

/** One online vCPU's state; empty blobs where the host has none. MFNs inside, as the host sees them. */
export interface VcpuState {
  readonly id: number;
  readonly basic: Buffer;
  readonly extended: Buffer;
  readonly xsave: Buffer;
  readonly msrs: Buffer;
}

/** What ties a domain to others, for going back in place to an instant at which it stood still from outside. */
export interface DomainLinks {
  /** Why it cannot go back to this instant; then nothing else is here. Else empty. */
  readonly unfit: string;
  /** Which start of the domain this is of: its id and the boot of its host. Another start of it has other ties. */
  readonly start: string;
  /** Frames of the grant table, of version 1. */
  readonly grants: Buffer;
  /** For each event channel, by port, a byte: EVTCHNSTAT_* (public/event_channel.h), 132 for a timer. */
  readonly channels: Buffer;
  /** Of the page that holds the words of all channels. */
  readonly eventArrayPfn: number;
  /** The pages of its devices' rings as they were when the pause began: of each its pfn (8 bytes) and its 4096 bytes. */
  readonly rings: Buffer;
  /** The devices and what their rings are, as text. */
  readonly devices: string;
}

/** Everything of a domain's state that is not memory. */
export interface DomainState {
  readonly vcpus: readonly VcpuState[];
  /** The 4096-byte shared info page (PV), else empty. */
  readonly sharedInfo: Buffer;
  /** Bodies of the stream's TSC_INFO, CPUID_POLICY, MSR_POLICY, HVM_CONTEXT and HVM_PARAMS; empty where none. */
  readonly tscInfo: Buffer;
  readonly cpuidPolicy: Buffer;
  readonly msrPolicy: Buffer;
  readonly hvmContext: Buffer;
  readonly hvmParams: Buffer;
  /** Where the host can go back to it in place, and was asked in a pause. */
  readonly links?: DomainLinks | undefined;
}

/** What a core dump holds beside memory, as Xen's own tools write it. */
export interface CoreState {
  /** vcpu_guest_context of each vCPU that was ever set up, by id; machine frames inside. */
  readonly contexts: readonly Buffer[];
  /** The 4096-byte shared info page; empty where it cannot be read. */
  readonly sharedInfo: Buffer;
  /** The 1280 bytes of the dump's note about the hypervisor (docs/core-dumps.md). */
  readonly hypervisor: Buffer;
}

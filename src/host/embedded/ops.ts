/**
 * The operations of the embedded host: what each takes, checked by the host before anything else, and what it gives.
 * Long lists of pfns travel as 64-bit floats in one blob (exact up to 2^53).
 */
import * as z from 'zod';
import type { Capabilities, DomainDisk, DomainSpec, Ending, Obstacle, OperationKind } from '../contract.js';
import { DormouseError } from '../../errors.js';
import type { DomainLayout, GuestProgress, MachineLayout } from './hypervisor.js';
import type { DomainInfo, DomainState, MemoryGeometry } from '../../domain/state.js';
import { domainTypes } from '../../domain/type.js';

const whole = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const domid = z.number().int().min(0).max(32_767);
const lease = whole;
const path = z.string().max(4096);
const text = z.string().max(1024 * 1024);
const blob = z.custom<Buffer>((value) => Buffer.isBuffer(value), 'expected bytes');
const pfn = z
  .number()
  .int()
  .min(0)
  .max(2 ** 40);
const transaction = whole.nullable();

const spec: z.ZodType<DomainSpec> = z.object({
  name: text,
  uuid: text,
  type: z.enum(domainTypes),
  maxMemoryKib: whole,
  vcpus: whole,
  config: text,
});
const geometry: z.ZodType<MemoryGeometry> = z.object({
  nrPfns: whole,
  guestWidth: z.union([z.literal(4), z.literal(8), z.literal(0)]),
  p2mFrames: z.array(pfn).max(2 ** 24),
  p2mGeneration: whole,
});
const vcpu = z.object({ id: whole, basic: blob, extended: blob, xsave: blob, msrs: blob });
const state: z.ZodType<DomainState> = z.object({
  vcpus: z.array(vcpu).max(4096),
  sharedInfo: blob,
  tscInfo: blob,
  cpuidPolicy: blob,
  msrPolicy: blob,
  hvmContext: blob,
  hvmParams: blob,
});
const operation: z.ZodType<OperationKind> = z.enum([
  'save',
  'checkpoint',
  'restore',
  'rollback',
  'digest',
  'dump',
]);
const ending: z.ZodType<Ending> = z.object({
  then: z.enum(['destroy', 'pause']),
  path: path.startsWith('/'),
  imageId: z.string().regex(/^[0-9a-f]{32}$/),
});
const level = z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(4)]);
const pins = z.array(z.object({ pfn, level })).max(2 ** 22);
/** Runs as packed pairs, pfns as packed numbers. */
const part = z.object({
  geometry: z.object({ nrPfns: whole, guestWidth: z.literal([4, 8, 0]), p2mGeneration: whole }),
  p2mFrames: blob,
  gained: blob,
  lost: blob,
  tables: blob,
  unpinned: blob,
});

const none = z.object({});
const byDomid = z.object({ domid });
const byLease = z.object({ lease });

export const opSchemas = {
  hello: z.object({ protocol: whole, pid: whole }),
  status: none,
  stop: z.object({ force: z.boolean() }),
  capabilities: none,

  list: none,
  info: byDomid,
  find: z.object({ selector: text }),
  config: byDomid,
  create: z.object({ spec, paused: z.boolean() }),
  pause: byDomid,
  unpause: byDomid,
  destroy: byDomid,
  geometry: byDomid,
  layout: byDomid,
  readState: byDomid,
  progress: byDomid,
  poke: z.object({
    domid,
    pfn,
    index: z.number().int().min(0).max(511),
    entry: z.string().regex(/^\d{1,20}$/),
  }),
  balloon: z.object({ domid, first: pfn, count: whole, up: z.boolean() }),
  setUnlogged: z.object({
    domid,
    gained: z.boolean(),
    lost: z.boolean(),
    retyped: z.boolean(),
    granted: z.boolean(),
  }),
  disks: byDomid,
  sharedDisks: byDomid,
  diskObstacles: z.object({ config: text }),
  setBackend: z.object({
    domid,
    index: z.number().int().min(0).max(7),
    holds: z.enum(['nothing', 'requests', 'answers']),
    delayUs: z.number().int().min(0).max(60_000_000),
    seed: whole,
    neverCloses: z.boolean(),
  }),

  acquire: z.object({ domid, operation }),
  release: byLease,
  suspend: z.object({
    lease,
    timeoutMs: z
      .number()
      .nonnegative()
      .max(2 ** 31 - 1),
  }),
  resumeInPlace: byLease,
  noteEnding: z.object({ lease, ending }),
  holdPaused: byLease,
  releasePaused: byLease,
  snapshot: byLease,
  cowPages: z.object({ lease, epoch: whole }),
  releaseSnapshot: z.object({ lease, epoch: whole }),
  trackerOn: byLease,
  trackerRead: z.object({ lease, clear: z.boolean() }),
  trackerOff: byLease,

  build: z.object({ spec }),
  rewrite: z.object({
    lease,
    part: part.nullable(),
    rings: z.object({ storePfn: pfn, consolePfn: pfn }).nullable(),
  }),
  completeRewrite: z.object({ lease, pins, state, release: z.boolean() }),
  setGeometry: z.object({ lease, geometry }),
  populate: z.object({ lease, runs: blob }),
  frames: z.object({ lease, pfns: blob }),
  sharedInfoFrame: byLease,
  connectRings: z.object({ lease, storePfn: pfn, consolePfn: pfn }),
  pin: z.object({ lease, tables: pins }),
  setState: z.object({ lease, state }),
  finish: byLease,

  xsRead: z.object({ path, transaction }),
  xsWrite: z.object({ path, value: text, transaction }),
  xsList: z.object({ path, transaction }),
  xsRemove: z.object({ path, transaction }),
  xsBegin: none,
  xsEnd: z.object({ transaction: whole, commit: z.boolean() }),
  xsWatch: z.object({ watch: whole, path }),
  xsUnwatch: z.object({ watch: whole }),
} as const;

export type OpName = keyof typeof opSchemas;
export type OpArgs<N extends OpName> = z.infer<(typeof opSchemas)[N]>;

export interface LeaseReport {
  readonly domid: number;
  readonly operation: OperationKind;
  readonly pid: number;
}

/** What `dormouse host status` shows. */
export interface HostReport {
  readonly name: string;
  readonly pid: number;
  readonly version: string;
  readonly startedAt: string;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  /** Freed by a guest while a snapshot still needs them. */
  readonly quarantinedBytes: number;
  readonly guests: readonly DomainInfo[];
  readonly leases: readonly LeaseReport[];
  /** Domains with a copy-on-write snapshot, and those whose writes are tracked. */
  readonly snapshots: number;
  readonly trackers: number;
  readonly connections: number;
  readonly capabilities: Capabilities;
}

export interface SnapshotReply {
  readonly epoch: number;
  readonly pauseNs: number;
  readonly dirty: Buffer | null;
  readonly geometry: MemoryGeometry;
  readonly state: DomainState;
}

export interface LayoutReply {
  readonly machine: MachineLayout;
  readonly domain: DomainLayout;
}

export interface OpResults {
  hello: { pid: number };
  status: HostReport;
  stop: null;
  capabilities: Capabilities;
  list: DomainInfo[];
  info: DomainInfo;
  find: DomainInfo;
  config: string;
  create: number;
  pause: null;
  unpause: null;
  destroy: null;
  geometry: MemoryGeometry;
  layout: LayoutReply;
  readState: DomainState;
  progress: GuestProgress;
  poke: null;
  balloon: null;
  setUnlogged: null;
  disks: readonly DomainDisk[];
  sharedDisks: readonly Obstacle[];
  diskObstacles: readonly Obstacle[];
  setBackend: null;
  acquire: number;
  release: null;
  suspend: null;
  resumeInPlace: null;
  noteEnding: null;
  holdPaused: null;
  releasePaused: null;
  snapshot: SnapshotReply;
  cowPages: number;
  releaseSnapshot: null;
  trackerOn: null;
  trackerRead: Buffer;
  trackerOff: null;
  build: { lease: number; domid: number };
  rewrite: { sharedInfoFrame: number; ports: OpResults['connectRings'] | null };
  completeRewrite: null;
  setGeometry: null;
  populate: null;
  /** Machine frames as packed numbers, -1 for none. */
  frames: Buffer;
  sharedInfoFrame: number;
  connectRings: { storePort: number; consolePort: number };
  pin: null;
  setState: null;
  finish: null;
  xsRead: string | null;
  xsWrite: null;
  xsList: string[];
  xsRemove: null;
  xsBegin: number;
  xsEnd: boolean;
  xsWatch: null;
  xsUnwatch: null;
}

export function isOpName(op: string): op is OpName {
  return Object.hasOwn(opSchemas, op);
}

/** Numbers as 64-bit floats. */
export function packNumbers(numbers: readonly number[]): Buffer {
  return Buffer.from(Float64Array.from(numbers).buffer);
}

/** The reverse. HOST_PROTOCOL for a blob that holds anything but whole numbers of at least `least`. */
export function unpackNumbers(packed: Buffer, least = 0): number[] {
  const bytes = Uint8Array.from(packed);
  if (bytes.length % 8 !== 0) throw new DormouseError('HOST_PROTOCOL', 'a list of numbers is cut short');
  const numbers = [...new Float64Array(bytes.buffer)];
  if (!numbers.every((number) => Number.isSafeInteger(number) && number >= least))
    throw new DormouseError('HOST_PROTOCOL', 'a list of numbers holds something else');
  return numbers;
}

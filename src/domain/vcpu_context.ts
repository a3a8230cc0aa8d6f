/**
 * The fields of Xen's public 64-bit layouts that hold machine frames, read and written in place.
 * Source: xen/include/public/arch-x86/xen.h (vcpu_guest_context, shared_info) and xen.h (start_info), Xen 4.17.
 */
import { Buffer } from 'node:buffer';

export const vcpuContextBytes = 5168;
export const sharedInfoBytes = 4096;

const offset = {
  rdx: 616,
  gdtFrames: 4832,
  gdtEntries: 4960,
  userTable: 4992, // ctrlreg[1]
  kernelTable: 5008, // ctrlreg[3]
} as const;

const gdtFrameCount = 16;
const gdtEntriesPerFrame = 512;

/** A field that holds a frame number, in the form the canonical and the machine version share. */
export interface FrameField {
  get(): bigint;
  set(frame: bigint): void;
}

function plainField(context: Buffer, at: number): FrameField {
  return { get: () => context.readBigUInt64LE(at), set: (frame) => context.writeBigUInt64LE(frame, at) };
}

/** cr3 and cr1 hold the frame shifted by 12; the low bits are kept apart. */
function tableField(context: Buffer, at: number, lowBits: bigint): FrameField {
  return {
    get: () => context.readBigUInt64LE(at) >> 12n,
    set: (frame) => context.writeBigUInt64LE((frame << 12n) | lowBits, at),
  };
}

/** The frame of start info: third argument of the suspend hypercall, in vCPU 0. */
export function startInfoField(context: Buffer): FrameField {
  return plainField(context, offset.rdx);
}

/**
 * Every other field of a vCPU that holds a frame: the GDT's frames, the kernel's table and the user's where it is set.
 * `canonical`: the form to be written (a user table is marked with low bit 1 there, as in the libxc stream).
 */
export function tableFields(context: Buffer, canonical: boolean): FrameField[] {
  const entries = Number(context.readBigUInt64LE(offset.gdtEntries));
  const frames = Math.min(gdtFrameCount, Math.ceil(entries / gdtEntriesPerFrame));
  const fields: FrameField[] = [];
  for (let i = 0; i < frames; i++) fields.push(plainField(context, offset.gdtFrames + 8 * i));
  fields.push(tableField(context, offset.kernelTable, 0n));
  if (context.readBigUInt64LE(offset.userTable) !== 0n)
    fields.push(tableField(context, offset.userTable, canonical ? 1n : 0n));
  return fields;
}

/** Shared info: p2m root and the rest that a restore rebuilds. */
export const sharedInfo = {
  vcpuInfoBytes: 64,
  vcpuInfoEnd: 2048,
  evtchnPending: 2048,
  evtchnMask: 2560,
  wallClock: 3072,
  arch: 3088,
  frameListList: 3096,
  p2mCr3: 3112,
  p2mVaddr: 3120,
  end: 3136,
} as const;

export interface StartInfoPatch {
  readonly nrPages: number;
  readonly sharedInfoFrame: bigint;
  readonly storeFrame: bigint;
  readonly storePort: number;
  readonly consoleFrame: bigint;
  readonly consolePort: number;
}

/** Frame numbers of xenstore's and the console's ring as a suspended guest's start info has them (PFNs). */
export function startInfoRings(page: Buffer): { storePfn: number; consolePfn: number } {
  return { storePfn: Number(page.readBigUInt64LE(56)), consolePfn: Number(page.readBigUInt64LE(72)) };
}

/** Writes what a new domain must find in its start info (public/xen.h, struct start_info). */
export function patchStartInfo(page: Buffer, patch: StartInfoPatch): void {
  page.writeBigUInt64LE(BigInt(patch.nrPages), 32);
  page.writeUInt32LE(0, 48);
  moveStartInfo(page, patch);
}

/** Writes what is the domain's own into the start info of one that goes back in place; the rest is as it was then. */
export function moveStartInfo(page: Buffer, own: Omit<StartInfoPatch, 'nrPages'>): void {
  page.writeBigUInt64LE(own.sharedInfoFrame << 12n, 40);
  page.writeBigUInt64LE(own.storeFrame, 56);
  page.writeUInt32LE(own.storePort, 64);
  page.writeBigUInt64LE(own.consoleFrame, 72);
  page.writeUInt32LE(own.consolePort, 80);
}

/** Bytes [first, end) of start info that differ between two equal guests on two machines: frames, ports and flags. */
export const startInfoBlanks = [
  [40, 52],
  [56, 84],
] as const;

export function blankStartInfo(page: Buffer): void {
  for (const [first, end] of startInfoBlanks) page.fill(0, first, end);
}

/**
 * A copy of a canonical context without what two equal guests differ in: vCPU 0's rax (the suspend call's answer) and the
 * flags word, in which the host sets "online" itself.
 */
export function digestibleContext(context: Buffer, vcpu: number): Buffer {
  const copy = Buffer.from(context);
  if (copy.length !== vcpuContextBytes) return copy;
  copy.fill(0, 512, 520);
  if (vcpu === 0) copy.fill(0, 600, 608);
  return copy;
}

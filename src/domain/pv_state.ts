/**
 * Turns the machine frames in a PV domain's registers into PFNs (canonical, as the libxc stream has them) and back, and
 * builds the shared info page of a new domain.
 */
import { Buffer } from 'node:buffer';
import { DormouseError } from '../errors.js';
import {
  sharedInfo,
  sharedInfoBytes,
  startInfoField,
  tableFields,
  vcpuContextBytes,
  type FrameField,
} from './vcpu_context.js';
import type { DomainState, VcpuState } from './state.js';
import { noFrame } from '../pfn/page_words.js';

/** Translates frame numbers; all ones where there is no translation. */
export type Translate = (frames: BigUint64Array) => BigUint64Array;

function translateFields(
  fields: FrameField[],
  translate: Translate,
  describe: (frame: bigint) => Error,
): void {
  const before = fields.map((field) => field.get());
  const after = translate(BigUint64Array.from(before));
  fields.forEach((field, i) => {
    const frame = after[i] ?? noFrame;
    if (frame === noFrame) throw describe(before[i] ?? 0n);
    field.set(frame);
  });
}

function copyOf64BitContext(vcpu: VcpuState): Buffer {
  if (vcpu.basic.length !== vcpuContextBytes)
    throw new DormouseError(
      'IMAGE_INCOMPATIBLE',
      `vCPU ${vcpu.id} has a context of ${vcpu.basic.length} bytes; only 64-bit PV guests (${vcpuContextBytes} bytes) are handled`,
    );
  return Buffer.from(vcpu.basic);
}

function translateVcpus(
  vcpus: readonly VcpuState[],
  translate: Translate,
  canonical: boolean,
  startInfo: boolean,
  describe: (vcpu: VcpuState, frame: bigint) => Error,
): VcpuState[] {
  return vcpus.map((vcpu) => {
    const basic = copyOf64BitContext(vcpu);
    const fields = tableFields(basic, canonical);
    if (startInfo && vcpu.id === 0) fields.push(startInfoField(basic));
    translateFields(fields, translate, (frame) => describe(vcpu, frame));
    return { ...vcpu, basic };
  });
}

/**
 * Registers with PFNs. `suspended`: the guest is in its suspend call, whose third argument is start info's frame; anywhere
 * else that register is the guest's own. GUEST_MEMORY_UNREADABLE if one names a frame that is not the domain's.
 */
export function canonicaliseVcpus(
  vcpus: readonly VcpuState[],
  toPfns: Translate,
  suspended = true,
): VcpuState[] {
  return translateVcpus(vcpus, toPfns, true, suspended, (vcpu, frame) => {
    const hex = frame.toString(16);
    return new DormouseError(
      'GUEST_MEMORY_UNREADABLE',
      `vCPU ${vcpu.id} holds machine frame 0x${hex}, which is not the domain's`,
    );
  });
}

/** Registers with machine frames of the domain; `suspended` as above. IMAGE_DAMAGED if one names a pfn without a frame. */
export function localiseVcpus(
  vcpus: readonly VcpuState[],
  toFrames: Translate,
  suspended = true,
): VcpuState[] {
  return translateVcpus(vcpus, toFrames, false, suspended, (vcpu, frame) => {
    const hex = frame.toString(16);
    return new DormouseError(
      'IMAGE_DAMAGED',
      `vCPU ${vcpu.id} of the image names pfn 0x${hex}, which has no frame`,
    );
  });
}

/** PFN of start info in a canonical state. */
export function startInfoPfn(state: Pick<DomainState, 'vcpus'>): number {
  const first = state.vcpus.find((vcpu) => vcpu.id === 0);
  if (!first) throw new DormouseError('IMAGE_DAMAGED', 'the image has no vCPU 0');
  return Number(startInfoField(first.basic).get());
}

/** The p2m is found by its root, never by the list of lists. */
function withP2mRoot(page: Buffer, frame: bigint): Buffer {
  page.writeBigUInt64LE(0n, sharedInfo.frameListList);
  page.writeBigUInt64LE(frame << 12n, sharedInfo.p2mCr3);
  return page;
}

/** The shared info page of a domain that goes back in place: events pend and are masked as they were then. */
export const sharedInfoInPlace = (old: Buffer, p2mRootFrame: bigint): Buffer =>
  withP2mRoot(Buffer.from(old), p2mRootFrame);

/**
 * The shared info page of a new domain: vcpu_info and arch of the old one, no event pending, every channel masked, the
 * p2m's root as a machine frame (0 where unknown). The host keeps its own wall clock.
 */
export function newSharedInfo(old: Buffer, p2mRootFrame: bigint): Buffer {
  const page = Buffer.alloc(sharedInfoBytes);
  old.copy(page, 0, 0, sharedInfo.vcpuInfoEnd);
  for (let at = 0; at < sharedInfo.vcpuInfoEnd; at += sharedInfo.vcpuInfoBytes) {
    page.writeUInt8(0, at);
    page.writeBigUInt64LE(0n, at + 8);
  }
  page.fill(0xff, sharedInfo.evtchnMask, sharedInfo.wallClock);
  old.copy(page, sharedInfo.arch, sharedInfo.arch, sharedInfo.end);
  return withP2mRoot(page, p2mRootFrame);
}

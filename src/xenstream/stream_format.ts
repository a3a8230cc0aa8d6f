/**
 * Numbers and layouts of an `xl save` file: xl header, libxl stream v2, libxc stream v2 and v3.
 * Sources: docs/specs/libxl-migration-stream.pandoc, docs/specs/libxc-migration-stream.pandoc.
 */
import { Buffer } from 'node:buffer';
import { asDormouseError, DormouseError, ofGuest } from '../errors.js';
import { XL_MAGIC } from '../image/format.js';

/** Longest record body either stream allows. */
export const maxRecordBytes = 128 * 1024 * 1024;
/** Longest optional data (the configuration) accepted in the xl header. */
export const maxOptionalDataBytes = 4 * 1024 * 1024;
/** Pfns libxc puts into one PAGE_DATA record, and the most that are handed on at a time. */
export const batchPfns = 1024;
/** PV's own limit on vCPU ids. */
export const maxVcpus = 8192;

export const xlMagic = XL_MAGIC;
export const xlHeaderBytes = xlMagic.length + 16;
export const xlByteOrder = 0x01020304;
/** Both are set in every file of Xen 4.6 and later. */
export const xlMandatoryFlags = { configJson: 1, streamV2: 2 } as const;

export const libxlHeaderBytes = 16;
export const libxlIdent = Buffer.from('LibxlFmt', 'latin1');
export const libxlVersion = 2;
export const libxlOptions = { bigEndian: 1, legacy: 2 } as const;

export const libxcHeaderBytes = 24;
export const libxcMarker = Buffer.alloc(8, 0xff);
export const libxcIdent = 0x58454e46;
export const libxcOptionBigEndian = 1;
export const domainHeaderBytes = 16;
export const domainType = { pv: 1, hvm: 2 } as const;

export const recordHeaderBytes = 8;
/** Set in the type of a record that a reader who does not know it may skip. */
export const optionalRecord = 0x80000000;

export const libxlRecord = {
  end: 0,
  libxcContext: 1,
  emulatorXenstoreData: 2,
  emulatorContext: 3,
  checkpointEnd: 4,
  checkpointState: 5,
} as const;

export const libxcRecord = {
  end: 0x00,
  pageData: 0x01,
  pvInfo: 0x02,
  p2mFrames: 0x03,
  vcpuBasic: 0x04,
  vcpuExtended: 0x05,
  vcpuXsave: 0x06,
  sharedInfo: 0x07,
  tscInfo: 0x08,
  hvmContext: 0x09,
  hvmParams: 0x0a,
  toolstack: 0x0b,
  vcpuMsrs: 0x0c,
  verify: 0x0d,
  checkpoint: 0x0e,
  checkpointDirtyPfnList: 0x0f,
  staticDataEnd: 0x10,
  cpuidPolicy: 0x11,
  msrPolicy: 0x12,
} as const;

const libxcNames = new Map<number, string>([
  [0x00, 'END'],
  [0x01, 'PAGE_DATA'],
  [0x02, 'X86_PV_INFO'],
  [0x03, 'X86_PV_P2M_FRAMES'],
  [0x04, 'X86_PV_VCPU_BASIC'],
  [0x05, 'X86_PV_VCPU_EXTENDED'],
  [0x06, 'X86_PV_VCPU_XSAVE'],
  [0x07, 'SHARED_INFO'],
  [0x08, 'X86_TSC_INFO'],
  [0x09, 'HVM_CONTEXT'],
  [0x0a, 'HVM_PARAMS'],
  [0x0b, 'TOOLSTACK'],
  [0x0c, 'X86_PV_VCPU_MSRS'],
  [0x0d, 'VERIFY'],
  [0x0e, 'CHECKPOINT'],
  [0x0f, 'CHECKPOINT_DIRTY_PFN_LIST'],
  [0x10, 'STATIC_DATA_END'],
  [0x11, 'X86_CPUID_POLICY'],
  [0x12, 'X86_MSR_POLICY'],
]);
const libxlNames = new Map<number, string>([
  [0, 'END'],
  [1, 'LIBXC_CONTEXT'],
  [2, 'EMULATOR_XENSTORE_DATA'],
  [3, 'EMULATOR_CONTEXT'],
  [4, 'CHECKPOINT_END'],
  [5, 'CHECKPOINT_STATE'],
]);

export type StreamLayer = 'libxl' | 'libxc';

/** The specification's name of a record type, or its number; for messages. */
export function recordName(layer: StreamLayer, type: number): string {
  const known = (layer === 'libxc' ? libxcNames : libxlNames).get(type);
  return `${layer} ${known ?? `record 0x${type.toString(16)}`}`;
}

/** False for the reserved nibbles 5 to 8. */
export function isLegalType(type: number): boolean {
  return type <= 4 || type >= 9;
}

/** Bytes of vcpu_guest_context by guest width. */
export const vcpuContextBytes = { 4: 2800, 8: 5168 } as const;

/** Bytes of zero that follow a body of this length. */
export function paddingBytes(length: number): number {
  return -length & 7;
}

export function conversionCancelled(): DormouseError {
  return new DormouseError('CANCELLED', 'the conversion was cancelled; nothing was written');
}

/** Runs a conversion; its errors say that no guest was touched, whatever their code says elsewhere. */
export async function withoutGuest<T>(convert: () => Promise<T>): Promise<T> {
  try {
    return await convert();
  } catch (thrown) {
    const error = asDormouseError(thrown);
    if (error.guest === 'untouched') throw error;
    throw ofGuest(error, 'untouched');
  }
}

/**
 * What processor a guest was shown, and what it lacks elsewhere. Policies have Xen's form: CPUID leaves of 24 bytes
 * (leaf, subleaf, eax, ebx, ecx, edx), MSRs of 16 (index, flags, value), little-endian.
 */
import type { Buffer } from 'node:buffer';
import { featureWords, msrFeatures, xsaveStates } from './cpu_features.js';
import { hvmRecord, hvmRecords } from './hvm_context.js';
import type { DomainState } from './state.js';

export interface CpuPolicy {
  readonly cpuidPolicy: Buffer;
  readonly msrPolicy: Buffer;
}
export type GuestCpu = Pick<DomainState, 'cpuidPolicy' | 'msrPolicy' | 'vcpus' | 'hvmContext'>;

const leafBytes = 24;
const msrBytes = 16;
const registerAt = { a: 8, b: 12, c: 16, d: 20 } as const;
type Register = keyof typeof registerAt;

/** Value of a register of a leaf; 0 where the policy has none. */
class Leaves {
  readonly #at = new Map<string, number>();

  constructor(private readonly bytes: Buffer) {
    for (let at = 0; at + leafBytes <= bytes.length; at += leafBytes)
      this.#at.set(`${bytes.readUInt32LE(at)}.${bytes.readUInt32LE(at + 4)}`, at);
  }

  register(leaf: number, subleaf: number, register: Register): number {
    const at = this.#at.get(`${leaf}.${subleaf}`);
    return at === undefined ? 0 : this.bytes.readUInt32LE(at + registerAt[register]);
  }

  /** XCR0 bits that may be set. */
  get states(): bigint {
    return BigInt(this.register(0xd, 0, 'a')) | (BigInt(this.register(0xd, 0, 'd')) << 32n);
  }
}

function bitsOf(value: bigint): number[] {
  const bits: number[] = [];
  for (let bit = 0; value >> BigInt(bit) > 0n; bit++) if ((value >> BigInt(bit)) & 1n) bits.push(bit);
  return bits;
}

function missingLeaves(guest: Leaves, host: Leaves): string[] {
  return featureWords.flatMap(({ leaf, subleaf, register, names, ignored }) => {
    const lacking = guest.register(leaf, subleaf, register) & ~host.register(leaf, subleaf, register);
    return bitsOf(BigInt(lacking >>> 0))
      .filter((bit) => ignored?.includes(bit) !== true)
      .map((bit) => {
        const name = names[bit] ?? '-';
        return name === '-' ? `bit ${bit} of e${register}x of CPUID leaf 0x${leaf.toString(16)}` : name;
      });
  });
}

const msrsOf = (bytes: Buffer): Map<number, bigint> => {
  const found = new Map<number, bigint>();
  for (let at = 0; at + msrBytes <= bytes.length; at += msrBytes)
    found.set(bytes.readUInt32LE(at), bytes.readBigUInt64LE(at + 8));
  return found;
};

function missingMsrs(guest: Buffer, host: Buffer): string[] {
  const [ours, theirs] = [msrsOf(host), msrsOf(guest)];
  return msrFeatures.flatMap(({ index, names }) =>
    bitsOf((theirs.get(index) ?? 0n) & ~(ours.get(index) ?? 0n)).map(
      (bit) => names.get(bit) ?? `bit ${bit} of MSR 0x${index.toString(16)}`,
    ),
  );
}

/** State that vCPUs have used: xcr0_accum of each. Offsets: struct xen_domctl's extended state, hvm_hw_cpu_xsave. */
function usedStates({ vcpus, hvmContext }: GuestCpu): bigint {
  const at = (bytes: Buffer, offset: number): bigint =>
    bytes.length >= offset + 8 ? bytes.readBigUInt64LE(offset) : 0n;
  let used = vcpus.reduce((all, { xsave }) => all | at(xsave, 8), 0n);
  for (const { type, body } of hvmRecords(hvmContext)) if (type === hvmRecord.xsave) used |= at(body, 16);
  return used;
}

/**
 * What the guest was shown or has used that the host cannot show a guest of its type, each once: `avx`, `xsave of avx`, as
 * far as the image tells. Empty: nothing stands against it.
 */
export function missingFeatures(guest: GuestCpu, host: CpuPolicy): string[] {
  const [theirs, ours] = [new Leaves(guest.cpuidPolicy), new Leaves(host.cpuidPolicy)];
  const states = (theirs.states | usedStates(guest)) & ~ours.states;
  // Whatever has no XSAVE keeps x87 and sse by FXSAVE.
  const lacking = bitsOf(states & ~3n).map((bit) => `xsave of ${xsaveStates[bit] ?? `state ${bit}`}`);
  return [
    ...new Set([...missingLeaves(theirs, ours), ...lacking, ...missingMsrs(guest.msrPolicy, host.msrPolicy)]),
  ];
}

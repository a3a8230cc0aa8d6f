/** A domain's state taken apart: its vCPUs' registers by Xen's names for them, and what has no finer names. */
import { Buffer } from 'node:buffer';
import { hvmRecord, hvmRecordNames, hvmRecords } from './hvm_context.js';
import type { DomainState, VcpuState } from './state.js';
import type { DomainType } from './type.js';
import { digestibleContext, vcpuContextBytes } from './vcpu_context.js';

/** What has a name: a register, or a blob of bytes. */
export interface StatePart {
  readonly name: string;
  readonly bytes: Buffer;
  readonly isRegister: boolean;
}

export interface VcpuParts {
  readonly vcpu: number;
  readonly parts: readonly StatePart[];
}

export interface StateParts {
  readonly vcpus: readonly VcpuParts[];
  /** What is of no vCPU. */
  readonly domain: readonly StatePart[];
}

type Layout = readonly (readonly [name: string, bytes: number])[];

/** Fields one after the other, of so many bytes each. */
const fields = (bytes: number, names: string): Layout => names.split(' ').map((name) => [name, bytes]);
const numbered = (name: string, count: number): string =>
  Array.from({ length: count }, (_, i) => `${name}${i}`).join(' ');

/** No field, but room between two. */
const gap = '-';

/** A selector and the room after it. */
const selectors = (names: string): Layout =>
  fields(2, names).flatMap((selector) => [selector, [gap, 6] as const]);

/** vcpu_guest_context of x86-64 (public/arch-x86/xen.h, xen-x86_64.h). */
const pvContext: Layout = [
  ['fpu_ctxt', 512],
  ...fields(8, 'flags r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi'),
  ...fields(4, 'error_code entry_vector'),
  ['rip', 8],
  ['cs', 2],
  [gap, 2],
  ['saved_upcall_mask', 1],
  [gap, 3],
  ...fields(8, 'rflags rsp'),
  ...selectors('ss es ds fs gs'),
  ['trap_ctxt', 4096],
  ...fields(8, `ldt_base ldt_ents ${numbered('gdt_frames', 16)} gdt_ents kernel_ss kernel_sp`),
  ...fields(8, `${numbered('cr', 8)} ${numbered('dr', 8)}`),
  ...fields(8, 'event_callback_eip failsafe_callback_eip syscall_callback_eip vm_assist'),
  ...fields(8, 'fs_base gs_base_kernel gs_base_user'),
];

const segments = 'cs ds es fs gs ss tr ldtr';
const each = (names: string, suffix: string): string =>
  names
    .split(' ')
    .map((name) => `${name}_${suffix}`)
    .join(' ');

/** The CPU record of an HVM context (public/arch-x86/hvm/save.h, struct hvm_hw_cpu). */
const hvmCpu: Layout = [
  ['fpu_regs', 512],
  ...fields(8, 'rax rbx rcx rdx rbp rsi rdi rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags'),
  ...fields(8, 'cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7'),
  ...fields(4, `${each(segments, 'sel')} ${each(segments, 'limit')} idtr_limit gdtr_limit`),
  ...fields(8, `${each(segments, 'base')} idtr_base gdtr_base`),
  ...fields(4, each(segments, 'arbytes')),
  ...fields(8, 'sysenter_cs sysenter_esp sysenter_eip shadow_gs msr_flags msr_lstar msr_star msr_cstar'),
  ...fields(8, 'msr_syscall_mask msr_efer msr_tsc_aux tsc'),
  ...fields(4, 'pending_event error_code flags'),
  [gap, 4],
];

const bytesOf = (layout: Layout): number => layout.reduce((sum, [, bytes]) => sum + bytes, 0);

const blob = (name: string, bytes: Buffer): StatePart => ({ name, bytes, isRegister: false });

/** Its fields, or all of it under one name where it is not of that layout. */
function split(whole: string, bytes: Buffer, layout: Layout): StatePart[] {
  if (bytes.length !== bytesOf(layout)) return [blob(whole, bytes)];
  let at = 0;
  return layout.flatMap(([name, size]) => {
    const part = { name, bytes: bytes.subarray(at, (at += size)), isRegister: size <= 8 };
    return name === gap ? [] : [part];
  });
}

/** Where the fields are. */
function placesOf(layout: Layout): ReadonlyMap<string, readonly [at: number, bytes: number]> {
  let at = 0;
  return new Map(layout.map(([name, bytes]) => [name, [(at += bytes) - bytes, bytes]]));
}

/** Of vcpu_guest_context: the vCPU is up, its FPU's state is there, it executes in its kernel. */
const contextFlags = { fpu: 1n, inKernel: 4n, online: 32n } as const;

const sameNames =
  'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi rip rflags rsp fs_base ' +
  'cr0 cr2 cr3 cr4 dr0 dr1 dr2 dr3 dr6 dr7';

/**
 * The vcpu_guest_context of a PVH or HVM vCPU by its CPU record, as Xen makes one for whoever asks (arch_get_info_guest). Null if it is no
 * such record.
 */
export function contextOfHvm(cpu: Buffer): Buffer | null {
  if (cpu.length !== bytesOf(hvmCpu)) return null;
  const [from, to] = [placesOf(hvmCpu), placesOf(pvContext)];
  const context = Buffer.alloc(vcpuContextBytes);
  const copy = (source: string, target = source): void => {
    const [at, bytes] = from.get(source) ?? [0, 0];
    cpu.copy(context, to.get(target)?.[0], at, at + bytes);
  };
  for (const name of sameNames.split(' ')) copy(name);
  for (const name of ['cs', 'ss', 'ds', 'es', 'fs', 'gs'])
    context.writeUInt16LE(cpu.readUInt16LE(from.get(`${name}_sel`)?.[0] ?? 0), to.get(name)?.[0] ?? 0);
  copy('fpu_regs', 'fpu_ctxt');
  const inKernel = (cpu.readUInt16LE(from.get('cs_sel')?.[0] ?? 0) & 3) === 0;
  copy('gs_base', inKernel ? 'gs_base_kernel' : 'gs_base_user');
  copy('shadow_gs', inKernel ? 'gs_base_user' : 'gs_base_kernel');
  const flags = contextFlags.online | contextFlags.fpu | (inKernel ? contextFlags.inKernel : 0n);
  context.writeBigUInt64LE(flags, to.get('flags')?.[0] ?? 0);
  return context;
}

/** What two equal guests differ in is left out, as of a digest. */
function ofContext(type: DomainType, { id, basic, extended, xsave, msrs }: VcpuState): StatePart[] {
  const isPv = type === 'pv' && basic.length === vcpuContextBytes;
  return [
    ...(isPv ? split('basic', digestibleContext(basic, id), pvContext) : [blob('basic', basic)]),
    ...[blob('extended', extended), blob('xsave', xsave), blob('msrs', msrs)],
  ];
}

/** Types of records of which each vCPU has its own. */
const perVcpu: ReadonlySet<number> = new Set([2, 5, 6, 14, 16, 17, 18, 19, 20]);

/** By the names of Xen's headers; parts that a guest does not have are empty or missing. */
export function statePartsOf(type: DomainType, state: DomainState): StateParts {
  const vcpus = new Map<number, StatePart[]>();
  for (const vcpu of state.vcpus) vcpus.set(vcpu.id, ofContext(type, vcpu));
  const { sharedInfo, tscInfo, cpuidPolicy, msrPolicy, hvmParams } = state;
  const domain = Object.entries({ sharedInfo, tscInfo, cpuidPolicy, msrPolicy, hvmParams }).map(
    ([name, bytes]) => blob(name, bytes),
  );
  const records = [...hvmRecords(state.hvmContext)];
  const online = new Set(
    records.filter((record) => record.type === hvmRecord.cpu).map(({ instance }) => instance),
  );
  for (const { type: kind, instance, body } of records) {
    const name = hvmRecordNames[kind] ?? `record ${kind}`;
    const ofVcpu = perVcpu.has(kind) && online.has(instance);
    const parts = kind === hvmRecord.cpu ? split(name, body, hvmCpu) : [blob(name, body)];
    if (ofVcpu) vcpus.set(instance, [...(vcpus.get(instance) ?? []), ...parts]);
    else domain.push(blob(instance === 0 ? name : `${name} ${instance}`, body));
  }
  const sorted = [...vcpus].sort(([a], [b]) => a - b);
  return { vcpus: sorted.map(([vcpu, parts]) => ({ vcpu, parts })), domain };
}

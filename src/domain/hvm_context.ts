/** The records of an HVM domain's context (public/hvm/save.h): a head of 8 bytes, then that record's body. */
import type { Buffer } from 'node:buffer';
import type { DomainState } from './state.js';

export const hvmRecord = { end: 0, header: 1, cpu: 2, xsave: 16 } as const;

/** Xen's names, in lower case, of the types of records. */
export const hvmRecordNames: Readonly<Record<number, string>> = {
  ...{
    1: 'header',
    2: 'cpu',
    3: 'pic',
    4: 'ioapic',
    5: 'lapic',
    6: 'lapic_regs',
    7: 'pci_irq',
    8: 'isa_irq',
  },
  ...{ 9: 'pci_link', 10: 'pit', 11: 'rtc', 12: 'hpet', 13: 'pmtimer', 14: 'mtrr', 15: 'viridian_domain' },
  ...{ 16: 'cpu_xsave', 17: 'viridian_vcpu', 18: 'vmce_vcpu', 19: 'tsc_adjust', 20: 'cpu_msr' },
};

export interface HvmRecord {
  readonly type: number;
  /** The vCPU, where it is a record of one. */
  readonly instance: number;
  readonly body: Buffer;
}

const headBytes = 8;
/** For as many vCPUs as there can be, of more types than there are: what follows is not looked at. */
const mostRecords = 8192 * 16;

/** Up to the end record, or to what is cut short: who needs the whole context lets Xen check it. */
export function* hvmRecords(context: Buffer): Generator<HvmRecord> {
  for (let at = 0, n = 0; at + headBytes <= context.length && n < mostRecords; n++) {
    const type = context.readUInt16LE(at);
    const length = context.readUInt32LE(at + 4);
    const start = at + headBytes;
    if (type === hvmRecord.end || length > context.length - start) return;
    yield { type, instance: context.readUInt16LE(at + 2), body: context.subarray(start, start + length) };
    at = start + length;
  }
}

/** Ids of the vCPUs that were online, ascending. */
export function onlineVcpus({ vcpus, hvmContext }: Pick<DomainState, 'vcpus' | 'hvmContext'>): number[] {
  const ids = vcpus.map(({ id }) => id);
  for (const { type, instance } of hvmRecords(hvmContext)) if (type === hvmRecord.cpu) ids.push(instance);
  return [...new Set(ids)].sort((a, b) => a - b);
}

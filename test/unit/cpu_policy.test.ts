/** Processor features that an image needs and a host lacks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureWords } from '../../src/domain/cpu_features.js';
import { missingFeatures } from '../../src/domain/cpu_policy.js';
import { hvmRecords, onlineVcpus } from '../../src/domain/hvm_context.js';
import { hvmRecord } from '../support/hvm_record.js';

const none = Buffer.alloc(0);
type Leaf = readonly [leaf: number, subleaf: number, a: number, b: number, c: number, d: number];

function cpuid(...leaves: Leaf[]): Buffer {
  const out = Buffer.alloc(24 * leaves.length);
  leaves.flat().forEach((value, i) => out.writeUInt32LE(value >>> 0, 4 * i));
  return out;
}
function msr(index: number, value: bigint): Buffer {
  const out = Buffer.alloc(16);
  out.writeUInt32LE(index);
  out.writeBigUInt64LE(value, 8);
  return out;
}
const noSubleaf = 0xffff_ffff;
const guest = (over: object) => ({
  cpuidPolicy: none,
  msrPolicy: none,
  vcpus: [],
  hvmContext: none,
  ...over,
});
const host = {
  cpuidPolicy: cpuid([1, noSubleaf, 0, 0, 0x0400_0000, 0x0700_0000], [0xd, 0, 3, 0, 0, 0]),
  msrPolicy: none,
};

test('features are named: of CPUID, of XSAVE, of MSRs', () => {
  const avx = cpuid(
    [1, noSubleaf, 0, 0, 0x1400_0000, 0x0700_0000],
    [7, 0, 0, 0x20, 0, 0],
    [0xd, 0, 7, 0, 0, 0],
  );
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: avx }), host), ['avx', 'avx2', 'xsave of avx']);
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: host.cpuidPolicy }), host), []);
  assert.deepEqual(missingFeatures(guest({}), host), []);
  assert.deepEqual(missingFeatures(guest({ msrPolicy: msr(0xce, 1n << 31n) }), host), ['cpuid-faulting']);
  const unnamed = cpuid([7, 0, 0, 0, 1 << 19, 0]);
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: unnamed }), host), [
    'bit 19 of ecx of CPUID leaf 0x7',
  ]);
});

test('what follows from the state of a guest is no feature', () => {
  // apic, osxsave, hypervisor, ospke
  const state = cpuid([1, noSubleaf, 0, 0, 0x8800_0000, 0x200], [7, 0, 0, 0, 0x10, 0]);
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: state }), host), []);
});

test('features that AMD shows twice are judged once: no host policy has them in the second place', () => {
  const twice = cpuid([0x8000_0001, noSubleaf, 0, 0, 0, 0x0183_f3ff]);
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: twice }), host), []);
  const syscall = cpuid([0x8000_0001, noSubleaf, 0, 0, 0, 0x800]);
  assert.deepEqual(missingFeatures(guest({ cpuidPolicy: syscall }), host), ['syscall']);
});

test('state that vCPUs have used counts where the policy is missing: PV and HVM', () => {
  const area = Buffer.alloc(64);
  area.writeBigUInt64LE(0x203n, 0);
  area.writeBigUInt64LE(0x207n, 8);
  const vcpu = { id: 0, basic: none, extended: none, msrs: none };
  assert.deepEqual(missingFeatures(guest({ vcpus: [{ ...vcpu, xsave: area }] }), host), [
    'xsave of avx',
    'xsave of pkru',
  ]);
  const record = Buffer.alloc(64);
  record.writeBigUInt64LE(7n, 16);
  assert.deepEqual(missingFeatures(guest({ hvmContext: hvmRecord(16, 0, record) }), host), ['xsave of avx']);
  assert.deepEqual(missingFeatures(guest({ vcpus: [{ ...vcpu, xsave: Buffer.alloc(4) }] }), host), []);
});

test('a hostile policy or context ends: cut short, of absurd lengths', () => {
  const cut = Buffer.concat([cpuid([1, noSubleaf, 0, 0, 0xffff_ffff, 0]), Buffer.alloc(23, 0xff)]);
  assert.ok(missingFeatures(guest({ cpuidPolicy: cut }), host).includes('avx'));
  const endless = Buffer.alloc(8);
  endless.writeUInt16LE(2);
  endless.writeUInt32LE(0xffff_ffff, 4);
  assert.deepEqual(onlineVcpus({ vcpus: [], hvmContext: endless }), []);
});

test('which vCPUs were online', () => {
  const hvmContext = Buffer.concat([
    hvmRecord(1, 0, none),
    hvmRecord(2, 3, none),
    hvmRecord(2, 0, none),
    hvmRecord(0, 0, none),
  ]);
  assert.deepEqual(onlineVcpus({ vcpus: [], hvmContext }), [0, 3]);
});

test('the table of names: words of 32 bits, each name where it is looked for', () => {
  for (const { names } of featureWords) assert.ok(names.length <= 32);
  const at = (leaf: number, register: string, bit: number): string | undefined =>
    featureWords.find((word) => word.leaf === leaf && word.subleaf !== 1 && word.register === register)
      ?.names[bit];
  const known: readonly (readonly [string | undefined, string])[] = [
    [at(1, 'c', 28), 'avx'],
    [at(1, 'c', 26), 'xsave'],
    [at(1, 'c', 30), 'rdrand'],
    [at(1, 'd', 26), 'sse2'],
    [at(1, 'd', 28), 'htt'],
    [at(7, 'b', 5), 'avx2'],
    [at(7, 'b', 16), 'avx512f'],
    [at(7, 'b', 31), 'avx512vl'],
    [at(7, 'b', 20), 'smap'],
    [at(7, 'c', 22), 'rdpid'],
    [at(7, 'c', 3), 'pku'],
    [at(7, 'd', 26), 'ibrsb'],
    [at(7, 'd', 31), 'ssbd'],
    [at(7, 'd', 20), 'cet-ibt'],
    [at(0x8000_0001, 'd', 27), 'rdtscp'],
    [at(0x8000_0001, 'd', 29), 'lm'],
    [at(0x8000_0001, 'c', 22), 'topoext'],
    [at(0x8000_0001, 'c', 29), 'monitorx'],
    [at(0x8000_0008, 'b', 12), 'ibpb'],
    [at(0x8000_0008, 'b', 24), 'amd-ssbd'],
    [at(0x8000_0021, 'a', 2), 'lfence+'],
  ];
  for (const [found, name] of known) assert.equal(found, name);
});

test('a context of millions of empty records is not collected', () => {
  const record = Buffer.alloc(8);
  record.writeUInt16LE(16, 0);
  const hvmContext = Buffer.alloc(64 << 20, record);
  let seen = 0;
  for (const { body } of hvmRecords(hvmContext)) seen += 1 + body.length;
  assert.ok(seen < 1 << 20, `${seen} records`);
});

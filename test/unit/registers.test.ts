/** Registers are where Xen's headers have them, and what differs is told by name. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { diffStates } from '../../src/diff/state_diff.js';
import { contextOfHvm, type StatePart, statePartsOf } from '../../src/domain/registers.js';
import type { DomainState } from '../../src/domain/state.js';
import { vcpuContextBytes } from '../../src/domain/vcpu_context.js';
import { hvmRecord } from '../support/hvm_record.js';
import { random, tempDir } from '../support/images.js';

const empty = Buffer.alloc(0);
const blobs = { extended: empty, xsave: empty, msrs: empty };
const noState: DomainState = {
  ...{ vcpus: [], sharedInfo: empty, tscInfo: empty, cpuidPolicy: empty, msrPolicy: empty },
  ...{ hvmContext: empty, hvmParams: empty },
};
const cpuRecordBytes = 1032;

/** Bytes that say where they are: the low half of it, or the high one. */
const places = (bytes: number, half: 0 | 8): Buffer =>
  Buffer.from(Array.from({ length: bytes }, (_, i) => (i >> half) & 0xff));

const pvState = (basic: Buffer): DomainState => ({ ...noState, vcpus: [{ id: 1, basic, ...blobs }] });
const hvmState = (...records: readonly Buffer[]): DomainState => ({
  ...noState,
  hvmContext: Buffer.concat(records),
});

/** Offset and size of each register. */
function layoutOf(type: 'pv' | 'pvh', stateOf: (half: 0 | 8) => DomainState): Map<string, [number, number]> {
  const [low, high] = ([0, 8] as const).map(
    (half) => statePartsOf(type, stateOf(half)).vcpus[0]?.parts ?? [],
  );
  return new Map(
    (low ?? []).flatMap((part: StatePart, i) => {
      if (!part.isRegister) return [];
      const at = (part.bytes[0] ?? 0) + ((high?.[i]?.bytes[0] ?? 0) << 8);
      return [[part.name, [at, part.bytes.length] as [number, number]] as const];
    }),
  );
}

/** What the compiler makes of `fields` of a structure of Xen's headers. */
function compiled(
  t: TestContext,
  header: string,
  type: string,
  fields: readonly string[],
): [number, number][] {
  const source = join(tempDir(t), 'fields.c');
  const prints = fields.map(
    (field) => `printf("%zu %zu\\n", offsetof(${type}, ${field}), sizeof(((${type} *)0)->${field}));`,
  );
  const head = `#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#define __XEN_TOOLS__\n#include <xen/xen.h>\n`;
  writeFileSync(source, `${head}#include <${header}>\nint main(void) {\n${prints.join('\n')}\n}\n`);
  execFileSync('gcc', ['-o', `${source}.out`, source]);
  const lines = spawnSync(`${source}.out`, { encoding: 'utf8' }).stdout.trim().split('\n');
  return lines.map((line) => line.split(' ').map(Number) as [number, number]);
}

const withoutHeaders = existsSync('/usr/include/xen/xen.h') ? false : 'libxen-dev is not installed';

/** How the structure of a PV guest's context calls it. */
function fieldOfPv(name: string): string {
  const numbered = /^(cr|dr|gdt_frames)(\d+)$/u.exec(name);
  if (numbered) {
    const arrays: Record<string, string> = { cr: 'ctrlreg', dr: 'debugreg', gdt_frames: 'gdt_frames' };
    return `${arrays[numbered[1] ?? ''] ?? ''}[${numbered[2]}]`;
  }
  const regs = /^(r\w+|error_code|entry_vector|saved_upcall_mask|[cdefgs]s)$/u;
  return regs.test(name) ? `user_regs.${name}` : name;
}

test('the context of a PV vCPU is that of Xen', { skip: withoutHeaders }, (t) => {
  const layout = layoutOf('pv', (half) => pvState(places(vcpuContextBytes, half)));
  // Counts as zero, for the host sets it.
  layout.delete('flags');
  assert.ok(layout.size > 60, `${layout.size} registers`);
  const fields = [...layout.keys()].map(fieldOfPv);
  const found = compiled(t, 'xen/arch-x86/xen.h', 'vcpu_guest_context_t', fields);
  assert.deepEqual([...layout.values()], found);
});

test('the CPU record of a PVH vCPU is that of Xen', { skip: withoutHeaders }, (t) => {
  const layout = layoutOf('pvh', (half) => hvmState(hvmRecord(2, 0, places(cpuRecordBytes, half))));
  assert.ok(layout.size > 75, `${layout.size} registers`);
  const found = compiled(t, 'xen/hvm/save.h', 'struct hvm_hw_cpu', [...layout.keys()]);
  assert.deepEqual([...layout.values()], found);
});

test('what differs is told by vCPU and name', () => {
  const [was, is] = [Buffer.alloc(vcpuContextBytes), Buffer.alloc(vcpuContextBytes)];
  is.writeBigUInt64LE(0xffff_8000_1234_5678n, 648); // rip
  is.writeUInt16LE(0xe033, 656); // cs
  is.writeUInt8(1, 800); // a trap
  is.writeUInt8(7, 600); // rax: the answer to the suspend call, of vCPU 0 alone
  const vcpu = (id: number, basic: Buffer) => ({ id, basic, ...blobs });
  const from = {
    type: 'pv',
    state: { ...noState, vcpus: [vcpu(0, was), vcpu(1, was), vcpu(2, was)] },
  } as const;
  const state = { ...noState, vcpus: [vcpu(0, is), vcpu(1, was), vcpu(3, is)], sharedInfo: Buffer.alloc(8) };
  assert.deepEqual(diffStates(from, { type: 'pv', state }), {
    vcpus: [
      {
        ...{ vcpu: 0, online: 'both', other: ['trap_ctxt'] },
        registers: [
          { name: 'rip', from: '0x0', to: '0xffff800012345678' },
          { name: 'cs', from: '0x0', to: '0xe033' },
        ],
      },
      { vcpu: 2, online: 'from', registers: [], other: [] },
      { vcpu: 3, online: 'to', registers: [], other: [] },
    ],
    state: ['sharedInfo'],
  });
  assert.deepEqual(diffStates(from, from), { vcpus: [], state: [] });
});

test('records of an HVM context are told by their vCPU, or by their names', () => {
  const cpu = Buffer.alloc(cpuRecordBytes);
  const other = Buffer.from(cpu);
  other.writeBigUInt64LE(5n, 512); // rax
  const [a, b] = [Buffer.alloc(8, 1), Buffer.alloc(8, 2)];
  const of = (registers: Buffer, rest: Buffer) => ({
    type: 'pvh' as const,
    state: hvmState(
      ...[hvmRecord(2, 0, cpu), hvmRecord(2, 1, registers), hvmRecord(6, 1, rest), hvmRecord(6, 9, rest)],
      ...[hvmRecord(3, 1, rest), hvmRecord(10, 0, rest), hvmRecord(77, 0, rest), hvmRecord(0, 0, empty)],
    ),
  });
  assert.deepEqual(diffStates(of(cpu, a), of(other, b)), {
    vcpus: [
      {
        ...{ vcpu: 1, online: 'both', other: ['lapic_regs'] },
        registers: [{ name: 'rax', from: '0x0', to: '0x5' }],
      },
    ],
    state: ['lapic_regs 9', 'pic 1', 'pit', 'record 77'],
  });
});

test('a context of another form is one part', () => {
  const short = (byte: number): DomainState => pvState(Buffer.alloc(64, byte));
  const found = diffStates({ type: 'pv', state: short(1) }, { type: 'pv', state: short(2) });
  assert.deepEqual(found.vcpus, [{ vcpu: 1, online: 'both', registers: [], other: ['basic'] }]);
});

test('a PVH vCPU has its registers in the context that a core dump holds', () => {
  const partsOf = (type: 'pv' | 'pvh', state: DomainState): Map<string, bigint> =>
    new Map(
      statePartsOf(type, state).vcpus[0]?.parts.map(({ name, bytes }) => [
        name,
        BigInt(`0x${Buffer.from(bytes).reverse().toString('hex') || '0'}`),
      ]),
    );
  for (const ring of [0, 3]) {
    const next = random(11 + ring);
    const cpu = Buffer.from(Array.from({ length: cpuRecordBytes }, () => next(256)));
    // cs_sel: 18 registers, 4 of control and 6 of debugging are before it.
    cpu.writeUInt32LE(8 + ring, 512 + 28 * 8);
    const context = contextOfHvm(cpu);
    assert.ok(context);
    const [hvm, pv] = [partsOf('pvh', hvmState(hvmRecord(2, 0, cpu))), partsOf('pv', pvState(context))];
    assert.equal(context.readBigUInt64LE(512), ring === 0 ? 0x25n : 0x21n);
    const [base, shadow] = [hvm.get('gs_base'), hvm.get('shadow_gs')];
    const expected = new Map([...pv.keys()].map((name) => [name, 0n]));
    for (const name of pv.keys())
      if (hvm.has(name) && !/^(.s|flags|error_code)$/u.test(name)) expected.set(name, hvm.get(name) ?? 0n);
    for (const name of ['cs', 'ss', 'ds', 'es', 'fs', 'gs'])
      expected.set(name, (hvm.get(`${name}_sel`) ?? 0n) & 0xffffn);
    expected.set('fpu_ctxt', hvm.get('fpu_regs') ?? 0n);
    expected.set('gs_base_kernel', (ring === 0 ? base : shadow) ?? 0n);
    expected.set('gs_base_user', (ring === 0 ? shadow : base) ?? 0n);
    assert.deepEqual(pv, expected);
  }
  assert.equal(contextOfHvm(Buffer.alloc(cpuRecordBytes - 8)), null);
});

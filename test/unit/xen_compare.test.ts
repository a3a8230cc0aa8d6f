/** The comparison of xl files, with what holds machine frames left out. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { compareXenFiles } from '../../src/convert/compare.js';
import {
  dataPage,
  fileOf,
  patternPage,
  pvParts,
  record,
  replacing,
  u32,
  u64,
  type Page,
} from '../support/xen_stream.js';

const folder = mkdtempSync(join(tmpdir(), 'dormouse-compare-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const startInfoPfn = 3;
const p2mLeafPfn = 1;

/** A guest whose vCPU 0 has start info in rdx (offset 616 of vcpu_guest_context). */
function guestFile(
  change: { pages?: Page[]; sharedInfo?: Buffer; registers?: [at: number, value: number] } = {},
): Buffer {
  const pages = [0, 1, 2, 3, 4, 5].map(
    (pfn) => change.pages?.find((page) => page.pfn === pfn) ?? dataPage(pfn, pfn + 1),
  );
  const context = Buffer.concat([patternPage(7), patternPage(8)]).subarray(0, 5168);
  u64(startInfoPfn).copy(context, 616);
  if (change.registers !== undefined) context.writeUInt8(change.registers[1], change.registers[0]);
  const basic = record(0x04, Buffer.concat([u32(0), u32(0), context]));
  const parts = pvParts({ batches: [pages], sharedInfo: change.sharedInfo ?? patternPage(80) });
  return fileOf(replacing(parts, 'basic 0', [basic]));
}

async function differences(changed: Buffer, ignoreMachineFrames: boolean): Promise<string[]> {
  const [left, right] = [join(folder, 'left'), join(folder, 'right')];
  writeFileSync(left, guestFile());
  writeFileSync(right, changed);
  const found = await compareXenFiles(left, right, { ignoreMachineFrames });
  return found.map(({ what, pfn }) => (pfn === undefined ? what : `${what} ${pfn}`));
}

function sharedInfoWith(at: number): Buffer {
  const page = patternPage(80);
  page.writeUInt8(page.readUInt8(at) ^ 0xff, at);
  return page;
}

test('p2m leaves and start info may differ in content, nothing else may', async () => {
  for (const pfn of [0, 1, 2, 3, 4, 5]) {
    const changed = guestFile({ pages: [dataPage(pfn, 99)] });
    const isExcused = pfn === startInfoPfn || pfn === p2mLeafPfn;
    assert.deepEqual(await differences(changed, true), isExcused ? [] : [`page ${pfn}`]);
    assert.deepEqual(await differences(changed, false), [`page ${pfn}`]);
  }
});

test('the type of a page counts even where its content does not', async () => {
  const changed = guestFile({ pages: [{ pfn: startInfoPfn, type: 1, body: patternPage(startInfoPfn + 1) }] });
  assert.deepEqual(await differences(changed, true), [`page ${startInfoPfn}`]);
});

test('of shared info, what a restore writes itself may differ', async () => {
  const written: [string, number][] = [
    ["vCPU 0's pending selector", 8],
    ["vCPU 31's pending selector", 31 * 64 + 15],
    ['pending events', 2048],
    ['event masks', 2560],
    ['wall clock', 3072],
    ['frame list list', 3096],
    ['p2m_cr3', 3112],
    ['after the structure', 3136],
  ];
  const taken: [string, number][] = [
    ["vCPU 0's pending flag", 0],
    ["vCPU 0's cr2", 16],
    ["vCPU 31's time", 31 * 64 + 63],
    ['max_pfn', 3088],
    ['p2m_vaddr', 3120],
    ['p2m_generation', 3128],
  ];
  for (const [name, at] of written)
    assert.deepEqual(await differences(guestFile({ sharedInfo: sharedInfoWith(at) }), true), [], name);
  for (const [name, at] of taken)
    assert.deepEqual(
      await differences(guestFile({ sharedInfo: sharedInfoWith(at) }), true),
      ['libxc SHARED_INFO'],
      name,
    );
  assert.deepEqual(await differences(guestFile({ sharedInfo: sharedInfoWith(2048) }), false), [
    'libxc SHARED_INFO',
  ]);
});

test('a register that differs is seen', async () => {
  assert.deepEqual(await differences(guestFile({ registers: [600, 0] }), true), ['libxc X86_PV_VCPU_BASIC']);
});

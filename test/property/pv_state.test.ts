import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicaliseVcpus, localiseVcpus, newSharedInfo, startInfoPfn } from '../../src/domain/pv_state.js';
import {
  blankStartInfo,
  patchStartInfo,
  startInfoRings,
  vcpuContextBytes,
} from '../../src/domain/vcpu_context.js';
import type { VcpuState } from '../../src/domain/state.js';

const empty = Buffer.alloc(0);
const none = 0xffff_ffff_ffff_ffffn;

/** A machine in which pfn and mfn are told apart by a fixed bit: every translation can be undone and checked. */
const machineBit = 1n << 30n;
const toPfns = (frames: BigUint64Array): BigUint64Array =>
  frames.map((mfn) => ((mfn & machineBit) === 0n ? none : mfn & ~machineBit));
const toFrames = (frames: BigUint64Array): BigUint64Array => frames.map((pfn) => pfn | machineBit);

const vcpuArbitrary = fc
  .record({
    noise: fc.uint8Array({ minLength: vcpuContextBytes, maxLength: vcpuContextBytes }),
    startInfo: fc.integer({ min: 1, max: 1 << 20 }),
    kernel: fc.integer({ min: 1, max: 1 << 20 }),
    user: fc.integer({ min: 0, max: 1 << 20 }),
    gdt: fc.array(fc.integer({ min: 1, max: 1 << 20 }), { maxLength: 14 }),
  })
  .map(({ noise, startInfo, kernel, user, gdt }): VcpuState => {
    const basic = Buffer.from(noise);
    basic.writeBigUInt64LE(BigInt(startInfo) | machineBit, 616);
    basic.writeBigUInt64LE(BigInt(gdt.length * 512), 4960);
    gdt.forEach((pfn, i) => basic.writeBigUInt64LE(BigInt(pfn) | machineBit, 4832 + 8 * i));
    basic.writeBigUInt64LE((BigInt(kernel) | machineBit) << 12n, 5008);
    basic.writeBigUInt64LE(user === 0 ? 0n : (BigInt(user) | machineBit) << 12n, 4992);
    return { id: 0, basic, extended: empty, xsave: empty, msrs: empty };
  });

test('localise undoes canonicalise, and canonicalise leaves no machine frame', () => {
  fc.assert(
    fc.property(vcpuArbitrary, (vcpu) => {
      const before = Buffer.from(vcpu.basic);
      const canonical = canonicaliseVcpus([vcpu], toPfns);
      assert.deepEqual(vcpu.basic, before, 'the input is not changed');
      const context = canonical[0]?.basic ?? empty;
      assert.equal(BigInt(startInfoPfn({ vcpus: canonical })), before.readBigUInt64LE(616) & ~machineBit);
      assert.equal(
        context.readBigUInt64LE(5008),
        ((before.readBigUInt64LE(5008) >> 12n) & ~machineBit) << 12n,
      );
      const user = before.readBigUInt64LE(4992);
      assert.equal(
        context.readBigUInt64LE(4992),
        user === 0n ? 0n : (((user >> 12n) & ~machineBit) << 12n) | 1n,
      );
      assert.deepEqual(localiseVcpus(canonical, toFrames)[0]?.basic, before);
    }),
  );
});

test('a register that names a foreign frame is a named error, on either way', () => {
  const basic = Buffer.alloc(vcpuContextBytes);
  basic.writeBigUInt64LE(0x77n << 12n, 5008);
  const vcpu = { id: 1, basic, extended: empty, xsave: empty, msrs: empty };
  assert.throws(() => canonicaliseVcpus([vcpu], toPfns), {
    code: 'GUEST_MEMORY_UNREADABLE',
    message: /0x77/,
  });
  assert.throws(() => localiseVcpus([vcpu], (pfns) => pfns.map(() => none)), { code: 'IMAGE_DAMAGED' });
});

test('a 32-bit context is refused by its size', () => {
  const vcpu = { id: 0, basic: Buffer.alloc(2800), extended: empty, xsave: empty, msrs: empty };
  assert.throws(() => canonicaliseVcpus([vcpu], toPfns), { code: 'IMAGE_INCOMPATIBLE', message: /2800/ });
});

test('a new shared info keeps vcpu_info and arch, clears what is pending and masks every channel', () => {
  const old = Buffer.alloc(4096, 0xa5);
  const page = newSharedInfo(old, 0x1234n);
  for (let at = 0; at < 2048; at += 64) {
    assert.equal(page.readUInt8(at), 0);
    assert.equal(page.readUInt8(at + 1), 0xa5);
    assert.equal(page.readBigUInt64LE(at + 8), 0n);
  }
  assert.ok(page.subarray(2048, 2560).every((byte) => byte === 0));
  assert.ok(page.subarray(2560, 3072).every((byte) => byte === 0xff));
  assert.ok(
    page.subarray(3072, 3088).every((byte) => byte === 0),
    'the clock is the host’s own',
  );
  assert.equal(page.readBigUInt64LE(3088), 0xa5a5a5a5a5a5a5a5n);
  assert.equal(page.readBigUInt64LE(3096), 0n);
  assert.equal(page.readBigUInt64LE(3112), 0x1234n << 12n);
  assert.equal(page.readBigUInt64LE(3120), 0xa5a5a5a5a5a5a5a5n);
});

test('start info is patched where public/xen.h has the fields, and blanking hides just that', () => {
  const page = Buffer.alloc(4096, 0x11);
  patchStartInfo(page, {
    nrPages: 77,
    sharedInfoFrame: 5n,
    storeFrame: 6n,
    storePort: 7,
    consoleFrame: 8n,
    consolePort: 9,
  });
  assert.equal(page.readBigUInt64LE(32), 77n);
  assert.equal(page.readBigUInt64LE(40), 5n << 12n);
  assert.deepEqual(startInfoRings(page), { storePfn: 6, consolePfn: 8 });
  assert.deepEqual([page.readUInt32LE(64), page.readUInt32LE(80)], [7, 9]);
  const other = Buffer.from(page);
  patchStartInfo(other, {
    nrPages: 77,
    sharedInfoFrame: 15n,
    storeFrame: 16n,
    storePort: 17,
    consoleFrame: 18n,
    consolePort: 19,
  });
  blankStartInfo(page);
  blankStartInfo(other);
  assert.deepEqual(page, other);
  assert.equal(page.readBigUInt64LE(32), 77n);
});

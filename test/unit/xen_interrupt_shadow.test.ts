import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mayBeInShadow, pauseOutsideShadow, type StoppedVcpu } from '../../src/host/xen/interrupt_shadow.js';

const on = 0x202;
const vcpu = (before: number[] | null, flags = on, privilege = 0): StoppedVcpu => ({
  ...{ id: 1, flags, privilege },
  before: before && Buffer.from(before),
});

test('a vCPU right after sti, or mov ss of a register, is in the shadow', () => {
  assert.ok(mayBeInShadow(vcpu([0x90, 0xfb])));
  for (let register = 0; register < 8; register++) assert.ok(mayBeInShadow(vcpu([0x8e, 0xd0 + register])));
});

test('one after hlt, mov ds or anything else is not', () => {
  for (const before of [
    [0xfb, 0xf4],
    [0x8e, 0xd8],
    [0x8e, 0xcf],
    [0x8c, 0xd0],
    [0x90, 0x90],
  ])
    assert.equal(mayBeInShadow(vcpu(before)), false, String(before));
});

test('nor is one that takes no interrupts, runs a process, or whose code cannot be read', () => {
  assert.equal(mayBeInShadow(vcpu([0x90, 0xfb], 0x2)), false);
  assert.equal(mayBeInShadow(vcpu([0x90, 0xfb], on, 3)), false);
  assert.equal(mayBeInShadow(vcpu(null)), false);
});

/** A guest that stands in the shadow in its first `times` pauses. */
function pausing(times: number): { calls: string; inShadow: number[] } {
  let calls = '';
  let pauses = 0;
  const inShadow = pauseOutsideShadow({
    pause: () => {
      calls += 'p';
      pauses++;
    },
    unpause: () => void (calls += 'u'),
    vcpus: () => [vcpu([0xfb, 0xf4]), { ...vcpu([0x90, pauses <= times ? 0xfb : 0xf4]), id: 3 }],
  });
  return { calls, inShadow };
}

test('a guest in the shadow is let go on until it has left it', () => {
  assert.deepEqual(pausing(0), { calls: 'p', inShadow: [] });
  assert.deepEqual(pausing(2), { calls: 'pupup', inShadow: [] });
});

test('one that never leaves it is left paused, and is told of', () => {
  const { calls, inShadow } = pausing(Infinity);
  assert.equal(calls, 'pupupupupupupup');
  assert.deepEqual(inShadow, [3]);
});

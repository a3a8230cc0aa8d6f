/**
 * The one instruction after `sti` or `mov ss`, during which a processor takes no interrupt. Xen's state of a vCPU has no field for it:
 * a vCPU brought back there could take its wake-up between `sti` and `hlt`, and sleep through it.
 */
import type { Buffer } from 'node:buffer';

/** Where a vCPU that stands still is in its code. */
export interface StoppedVcpu {
  readonly id: number;
  /** Low half of RFLAGS. */
  readonly flags: number;
  /** 0 for a kernel, 3 for a process. */
  readonly privilege: number;
  /** The two bytes before its instruction pointer; null where they cannot be read or it does not run in 64-bit mode. */
  readonly before: Buffer | null;
}

const takesInterrupts = 1 << 9;
const sti = 0xfb;
const movToSegment = 0x8e;

/** Whether it may be in the shadow. What precedes is not decoded: the end of a longer instruction can look like one of the two. */
export function mayBeInShadow({ flags, privilege, before }: StoppedVcpu): boolean {
  if (before === null || privilege !== 0 || (flags & takesInterrupts) === 0) return false;
  const [first, last] = [before.readUInt8(0), before.readUInt8(1)];
  // mov ss, register: the register field says ss, the mode a register.
  return last === sti || (first === movToSegment && (last & 0xf8) === 0xd0);
}

/** How often a guest is paused anew before it is left where it is, and how long it runs in between. */
const triesMax = 8;
const runMs = 0.2;

const run = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, runMs);

interface Pauses {
  readonly pause: () => void;
  readonly unpause: () => void;
  readonly vcpus: () => readonly StoppedVcpu[];
}

/**
 * Pauses, and lets it run on for a moment as long as a vCPU stands in the shadow. Returns the vCPUs that still do after the last try; in
 * one go, without waiting for anything else.
 */
export function pauseOutsideShadow({ pause, unpause, vcpus }: Pauses): number[] {
  for (let tries = 1; ; tries++) {
    pause();
    const inShadow = vcpus().filter(mayBeInShadow);
    if (inShadow.length === 0 || tries === triesMax) return inShadow.map(({ id }) => id);
    unpause();
    run();
  }
}

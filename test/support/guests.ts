/** Deterministic guests for the digest oracle: run to step N untouched, or through an operation on the way. */
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain } from '../../src/digest/digest.js';
import type { EmbeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { guestSpec } from './hosts.js';
import type { DomainInfo } from '../../src/domain/state.js';

export interface GuestPlan {
  readonly program: 'idle' | 'counter' | 'writer' | 'churner' | 'crasher' | 'talker';
  readonly vcpus: number;
  readonly seed: number;
  readonly steps: number;
  /** Steps per second of each vCPU; 0 = as fast as it can. */
  readonly rate: number;
  readonly memoryMib: number;
}

function configOf(plan: GuestPlan): EmbeddedConfig {
  const { program, seed, steps, rate, vcpus } = plan;
  return {
    ...{ program, seed, steps, rate, skewPercent: 60, fillPercent: 40, crashAt: Math.ceil(steps * 0.8) },
    // Each vCPU talks over its own.
    networks: program === 'talker' ? Math.min(vcpus, 4) : 0,
  };
}

/** Boots the guest; it runs at once. */
export function bootGuest(host: EmbeddedHost, name: string, plan: GuestPlan): Promise<number> {
  const spec = guestSpec(name, configOf(plan), { memoryMib: plan.memoryMib, vcpus: plan.vcpus });
  return host.create(spec, { paused: false });
}

function hasEnded(info: DomainInfo, steps: readonly number[], plan: GuestPlan): boolean {
  if (info.shutdown === 'crash') return plan.program === 'crasher';
  if (plan.program === 'idle') return true;
  return steps.every((done) => done >= plan.steps);
}

/** Waits until every vCPU has done its steps, or the crasher has crashed; fails after `limitMs`. */
export async function runToEnd(
  host: EmbeddedHost,
  selector: string,
  plan: GuestPlan,
  limitMs = 30_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const info = await host.find(selector);
    const { steps } = await host.progress(info.domid);
    if (hasEnded(info, steps, plan)) return;
    if (performance.now() > deadline)
      throw new Error(`${selector} is at steps ${steps.join(', ')} of ${plan.steps} after ${limitMs} ms`);
    await sleep(2);
  }
}

/** The digest of the guest run to its end and left untouched on the way; the domain is gone afterwards. */
export async function untouchedDigest(host: EmbeddedHost, plan: GuestPlan): Promise<string> {
  const name = `untouched-${plan.seed}`;
  const domid = await bootGuest(host, name, plan);
  await runToEnd(host, name, plan);
  const { digest } = await digestDomain(host, name);
  await host.destroy(domid);
  return digest;
}

/** Runs to the end, returns the digest and destroys the domain. */
export async function finalDigest(host: EmbeddedHost, selector: string, plan: GuestPlan): Promise<string> {
  await runToEnd(host, selector, plan);
  const { digest } = await digestDomain(host, selector);
  const { domid } = await host.find(selector);
  await host.destroy(domid);
  return digest;
}

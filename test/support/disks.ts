/** Guests with disks on an embedded host: booted, run to their end, and their disks' contents. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestDomain } from '../../src/digest/digest.js';
import type { Host, Lease, Rewriter, RewritePart } from '../../src/host/contract.js';
import { type EmbeddedConfig, embeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { guestSpec, until } from './hosts.js';

export interface DiskPlan {
  readonly seed: number;
  readonly vcpus: number;
  readonly steps: number;
  readonly rate: number;
  /** Pages of each disk. */
  readonly disks: readonly number[];
}

let made = 0;

/** An empty disk of so many pages. */
export function newDisk(dir: string, pages: number): string {
  const path = join(dir, `${++made}.disk`);
  writeFileSync(path, '');
  truncateSync(path, pages * 4096);
  return path;
}

export function copyDisks(dir: string, disks: readonly string[]): string[] {
  return disks.map((disk) => {
    const copy = join(dir, `${++made}.disk`);
    copyFileSync(disk, copy);
    return copy;
  });
}

/** The content of the others, into the same files. */
export function putDisks(disks: readonly string[], from: readonly string[]): void {
  disks.forEach((disk, index) => writeFileSync(disk, readFileSync(from[index] ?? '')));
}

export function configOf({ seed, steps, rate }: DiskPlan, disks: readonly string[]): EmbeddedConfig {
  return {
    ...{ program: 'disker', seed, steps, rate, fillPercent: 30 },
    disks: disks.map((file) => ({ file })),
  };
}

/** The configuration of an image of that guest, with other files as its disks. */
export const withDisks = (plan: DiskPlan, disks: readonly string[]): string =>
  embeddedConfig(configOf(plan, disks));

export async function bootWithDisks(
  host: EmbeddedHost,
  name: string,
  dir: string,
  plan: DiskPlan,
): Promise<{ domid: number; disks: string[] }> {
  const disks = plan.disks.map((pages) => newDisk(dir, pages));
  const spec = guestSpec(name, configOf(plan, disks), { memoryMib: 8, vcpus: plan.vcpus });
  return { domid: await host.create(spec, { paused: false }), disks };
}

export async function reachStep(host: EmbeddedHost, domid: number, step: number): Promise<void> {
  await until(`domain ${domid} at step ${step}`, 20_000, async () => {
    const { shutdown } = await host.info(domid);
    assert.equal(shutdown, null, 'the guest ended: its disk is not what it remembers');
    return (await host.progress(domid)).steps.every((done) => done >= step);
  });
}

/** Memory and disks of a guest that has done its steps. */
export async function endOf(
  host: EmbeddedHost,
  selector: string,
  disks: readonly string[],
  { steps }: DiskPlan,
): Promise<string> {
  const { domid } = await host.find(selector);
  await reachStep(host, domid, steps);
  const files = disks.map((disk) => createHash('sha256').update(readFileSync(disk)).digest('hex'));
  return [(await digestDomain(host, selector)).digest, ...files].join(' ');
}

/** The end of the guest left alone; the domain is gone afterwards. */
export async function untouchedEnd(host: EmbeddedHost, dir: string, plan: DiskPlan): Promise<string> {
  const { domid, disks } = await bootWithDisks(host, 'untouched', dir, plan);
  const end = await endOf(host, 'untouched', disks, plan);
  await host.destroy(domid);
  return end;
}

/** A host on which `between` is called when a domain was made ready to be rewritten and none of it has been. */
export function rewritingHost(host: EmbeddedHost, between: () => void): Host {
  const rewrite = async (lease: Lease, part?: RewritePart): Promise<Rewriter> => {
    const rewriter = await host.rewrite(lease, part);
    between();
    return rewriter;
  };
  return new Proxy<Host>(host, {
    get: (_, name) => {
      const own: unknown = name === 'rewrite' ? rewrite : Reflect.get(host, name, host);
      return typeof own === 'function' ? (own as (...args: never[]) => unknown).bind(host) : own;
    },
  });
}

/** Embedded hosts for tests: a run directory of their own, and every host of it ended whatever happens. */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DomainSpec } from '../../src/host/contract.js';
import { type EmbeddedConfig, embeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { startHost } from '../../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';

/** Process ids of the hosts that have a state file in `dir`. */
function hostPids(dir: string): number[] {
  return readdirSync(dir)
    .filter((file) => file.endsWith('.json'))
    .map((file) => (JSON.parse(readFileSync(join(dir, file), 'utf8')) as { pid: number }).pid);
}

export const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`);

/** Polls until `holds` does; fails after `limitMs`. */
export async function until(
  what: string,
  limitMs: number,
  holds: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await sleep(5);
  }
}

/** Sets DORMOUSE_RUN_DIR to a fresh directory until the test ends; then ends its hosts and removes it. */
export function useRunDir(t: TestContext): string {
  const parent = mkdtempSync(join(tmpdir(), 'dormouse-test-'));
  const dir = join(parent, 'run');
  const before = process.env.DORMOUSE_RUN_DIR;
  process.env.DORMOUSE_RUN_DIR = dir;
  t.after(async () => {
    if (before === undefined) delete process.env.DORMOUSE_RUN_DIR;
    else process.env.DORMOUSE_RUN_DIR = before;
    const pids = existsSync(dir) ? hostPids(dir).filter(isHost) : [];
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await until('hosts end', 5000, () => !pids.some(isHost));
    rmSync(parent, { recursive: true, force: true });
  });
  return dir;
}

/** Whether the process is a host that has not ended (one that was killed but not yet reaped has no command line). */
export function isHost(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('server_main');
  } catch {
    return false;
  }
}

/** A host of that many MiB in a run directory of its own, and a connection that ends with the test. */
export async function startTestHost(
  t: TestContext,
  options: { name?: string; memoryMib?: number } = {},
): Promise<EmbeddedHost> {
  const name = options.name ?? 'test';
  useRunDir(t);
  await startHost({ name, memoryBytes: (options.memoryMib ?? 256) * 1024 ** 2 });
  const host = await openEmbeddedHost(name);
  t.after(() => host.close());
  return host;
}

/** A guest of 8 MiB unless told otherwise. */
export function guestSpec(
  name: string,
  config: EmbeddedConfig = { program: 'counter', rate: 2000 },
  options: { memoryMib?: number; vcpus?: number } = {},
): DomainSpec {
  return {
    name,
    uuid: randomUUID(),
    type: 'pv',
    maxMemoryKib: (options.memoryMib ?? 8) * 1024,
    vcpus: options.vcpus ?? 1,
    config: embeddedConfig(config),
  };
}

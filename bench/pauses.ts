/** The pause of a light checkpoint under a writer, by memory size: it must not grow with memory or with dirt. */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../src/checkpoint/checkpoint.js';
import { embeddedConfig } from '../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { startHost, stopHost } from '../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../src/host/open/open_host.js';
import { figure, quantile } from './figure.js';
import type { Limits } from './limits.js';
import { benchLivePauses } from './live_pauses.js';

const pagesPerSecond = 50_000;
const bars = { p50Ms: 0.25, p99Ms: 1 };

interface PauseBench {
  readonly dir: string;
  readonly sizesGib: readonly number[];
  /** Snapshots taken and dropped, besides whole checkpoints written to disk. */
  readonly samples: number;
  readonly limits: Limits;
}

async function bootWriter(host: EmbeddedHost, gib: number): Promise<number> {
  const config = embeddedConfig({
    program: 'writer',
    rate: pagesPerSecond,
    skewPercent: 80,
    fillPercent: 75,
  });
  const maxMemoryKib = gib * 2 ** 20;
  return host.create(
    { name: 'writer', uuid: randomUUID(), type: 'pv', maxMemoryKib, vcpus: 1, config },
    { paused: false },
  );
}

/** Pauses of snapshots that are dropped at once: many samples, so that p99 means something. */
async function snapshotPauses(host: EmbeddedHost, domid: number, samples: number): Promise<number[]> {
  const pausesMs: number[] = [];
  for (let i = 0; i < samples; i++) {
    const lease = await host.acquire(domid, 'checkpoint');
    const snapshot = await host.snapshot(lease, { readOnce: true });
    pausesMs.push(snapshot.pauseNs / 1e6);
    await sleep(5);
    snapshot.memory.close();
    await snapshot.release();
    await lease.release();
  }
  return pausesMs;
}

/** Pauses of whole checkpoints, written and synced, one after the other. */
async function checkpointPauses(host: EmbeddedHost, dir: string, count: number): Promise<number[]> {
  const pausesMs: number[] = [];
  const image = join(dir, 'pause.dormouse');
  for (let i = 0; i < count; i++) {
    pausesMs.push((await checkpoint(host, 'writer', image, { mode: 'light' })).pauseMs);
    rmSync(image);
  }
  return pausesMs;
}

function report(gib: number, kind: string, pausesMs: readonly number[], { limits }: PauseBench): void {
  const copyOfAllMs = (gib * 2 ** 30) / limits.memcpyGbps / 1e6;
  for (const [name, q, barMs] of [
    ['p50', 0.5, bars.p50Ms],
    ['p99', 0.99, bars.p99Ms],
  ] as const) {
    const value = quantile(pausesMs, q);
    figure({
      name: `light_pause_${name}_${gib}gib_${kind}`,
      value,
      unit: 'ms',
      limitName: 'memcpy of all memory',
      limit: copyOfAllMs,
      ratio: value / copyOfAllMs,
      bar: `<= ${barMs} ms`,
      met: value <= barMs,
      note: `${pausesMs.length} samples, writer at ${pagesPerSecond} pages/s`,
    });
  }
}

/** One host and one writer a size. */
export async function benchPauses(bench: PauseBench): Promise<void> {
  for (const gib of bench.sizesGib) {
    await startHost({ name: 'pauses', memoryBytes: (gib + 1) * 2 ** 30 });
    const host = await openEmbeddedHost('pauses');
    try {
      const domid = await bootWriter(host, gib);
      await sleep(500);
      report(gib, 'snapshot', await snapshotPauses(host, domid, bench.samples), bench);
      report(gib, 'checkpoint', await checkpointPauses(host, bench.dir, gib > 4 ? 5 : 10), bench);
      if (gib === 1) await benchLivePauses(host, { ...bench, gib, count: 10 });
    } finally {
      await host.close();
      await stopHost('pauses', { force: true });
    }
  }
}

/** The pause of a rollback by how many pages differ: it must not grow with memory. */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { checkpoint } from '../src/checkpoint/checkpoint.js';
import { embeddedConfig } from '../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { startHost, stopHost } from '../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../src/host/open/open_host.js';
import { pageBytes } from '../src/pfn/page_words.js';
import { rollback, type RollbackResult } from '../src/rollback/rollback.js';
import { steps } from '../src/worker/steps.js';
import { figure, fitOf, median } from './figure.js';

const bars = { interceptMs: 1, slopeUs: 1 };
const guest = 'rollback';
/** Below are the guest's page tables and its p2m. */
const firstPfn = 8192;

export interface RollbackBench {
  readonly dir: string;
  readonly sizesGib: readonly number[];
  readonly differing: readonly number[];
  readonly rounds: number;
}

/** Another content in so many pages, spread over the guest's memory. */
async function disturb(host: EmbeddedHost, domid: number, pages: number): Promise<void> {
  if (pages === 0) return;
  const { nrPfns } = await host.geometry(domid);
  const view = await host.openToRewrite(domid);
  const stride = Math.floor((nrPfns - firstPfn) / pages);
  const page = Buffer.alloc(pageBytes, 0xd5);
  for (let i = 0; i < pages; i++) {
    page.writeUInt32LE(i, 0);
    steps().writePages(view.handle, BigUint64Array.of(BigInt(firstPfn + i * stride)), page);
  }
  view.close();
}

/** What is left of the pause without finding what differs. */
const beyondFinding = ({ pauseMs, downtime }: RollbackResult): number => pauseMs - downtime.findMs;

interface Sample {
  readonly pages: number;
  readonly ms: number;
  readonly findMs: number;
}

async function sampleOf(
  host: EmbeddedHost,
  domid: number,
  image: string,
  bench: RollbackBench,
  pages: number,
): Promise<Sample> {
  const results: RollbackResult[] = [];
  for (let round = 0; round < bench.rounds; round++) {
    await disturb(host, domid, pages);
    results.push(await rollback(host, guest, image));
  }
  return {
    pages: median(results.map(({ putPages }) => putPages)),
    ms: median(results.map(beyondFinding)),
    findMs: median(results.map(({ downtime }) => downtime.findMs)),
  };
}

function report(gib: number, samples: readonly Sample[], rounds: number): void {
  for (const { pages, ms, findMs } of samples) {
    const limit = bars.interceptMs + (bars.slopeUs * pages) / 1000;
    figure({
      name: `rollback_pause_${gib}gib_${pages}`,
      value: ms,
      unit: 'ms',
      limitName: '1 ms + 1 us a page that differs',
      limit,
      ratio: ms / limit,
      bar: '<= the limit',
      met: ms <= limit,
      note: `median of ${rounds}; and ${findMs.toPrecision(2)} ms for finding them`,
    });
  }
  const { interceptMs, slopeUs } = fitOf(samples);
  figure({
    name: `rollback_pause_fit_${gib}gib`,
    value: slopeUs,
    unit: 'us a page that differs',
    bar: `<= ${bars.slopeUs} us, after <= ${bars.interceptMs} ms`,
    met: slopeUs <= bars.slopeUs && interceptMs <= bars.interceptMs,
    note: `intercept ${interceptMs.toPrecision(3)} ms`,
  });
}

async function benchSize(host: EmbeddedHost, gib: number, bench: RollbackBench): Promise<void> {
  const config = embeddedConfig({ program: 'idle', fillPercent: 75 });
  const maxMemoryKib = gib * 2 ** 20;
  const spec = { name: guest, uuid: randomUUID(), type: 'pv', maxMemoryKib, vcpus: 1, config } as const;
  const domid = await host.create(spec, { paused: false });
  const image = join(bench.dir, 'rollback.dormouse');
  await checkpoint(host, guest, image, { mode: 'light' });
  const samples: Sample[] = [];
  await rollback(host, guest, image);
  for (const pages of bench.differing) samples.push(await sampleOf(host, domid, image, bench, pages));
  report(gib, samples, bench.rounds);
  await host.destroy(domid);
  rmSync(image);
}

/** One host and one guest a size. */
export async function benchRollback(bench: RollbackBench): Promise<void> {
  for (const gib of bench.sizesGib) {
    await startHost({ name: 'rollback', memoryBytes: (gib + 1) * 2 ** 30 });
    const host = await openEmbeddedHost('rollback');
    try {
      await benchSize(host, gib, bench);
    } finally {
      await host.close();
      await stopHost('rollback', { force: true });
    }
  }
}

/**
 * `npm run bench`: one JSON line a figure, each beside its limit or peer of the same run.
 *
 * usage: npm run bench -- [--dir DIR] [--gib N] [--peer-qemu PATH] [--quick] [--write FILE]
 *        npm run bench -- --xen [--quick] [--write FILE]
 *        npm run bench -- --points [--dir DIR] [--gib N] [--quick] [--write FILE]
 *   --dir    where images are written (a real disk); default the system's temporary folder
 *   --gib    memory of the guest that is saved and restored; default 4
 *   --peer-qemu  a qemu-system-x86_64 of 9.0 or newer: the same bytes through its mapped-ram file, in the same run
 *   --write  writes the report, docs/performance.md
 *   --xen    dormouse beside xl on a Xen host of the lab (docs/lab.md), instead of the engine on the embedded host
 *   --points points in time: what one costs of guests of 1, 4 and 16 GiB, up to that size; their depth; what a guest of 4 GiB, or that
 *            size, notices; what deltas would save
 *   --quick  smaller guests and fewer rounds: for trying the bench itself, not for figures
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { asDormouseError } from '../src/errors.js';
import { closeWorkers } from '../src/worker/pool.js';
import { benchDeltas } from './deltas.js';
import { benchEngine } from './engine.js';
import { figure, figures } from './figure.js';
import { measureLimits, withoutZeroPages, type Limits } from './limits.js';
import { mixedMemory } from './mixed_memory.js';
import { benchPauses } from './pauses.js';
import { benchPoints } from './points.js';
import { benchRollback } from './rollback.js';
import { writeEngineReport, writePointsReport, writeXenReport } from './report.js';
import { benchXen } from './xen.js';

const { values } = parseArgs({
  options: {
    dir: { type: 'string', default: tmpdir() },
    gib: { type: 'string', default: '4' },
    'peer-qemu': { type: 'string' },
    quick: { type: 'boolean', default: false },
    points: { type: 'boolean', default: false },
    xen: { type: 'boolean', default: false },
    write: { type: 'string' },
  },
});

function printLimits(limits: Limits): void {
  const plain = (name: string, value: number, unit: string): void => figure({ name, value, unit });
  plain('limit.memcpy', limits.memcpyGbps, 'GB/s');
  plain('limit.scattered_copy', limits.scatteredCopyUs, 'us/page');
  plain('limit.zero_scan', limits.zeroScanGbps, 'GB/s');
  plain('limit.page_hash', limits.hashGbps, 'GB/s');
  plain('limit.first_touch', limits.firstTouchUs, 'us/page');
  plain('limit.first_touch_huge', limits.firstTouchHugeUs, 'us/page');
  plain('limit.shared_first_touch_2', limits.sharedFirstTouchGbps, 'GB/s');
  plain('limit.lz4_compress_1', limits.lz4NonZero[0].compressGbps, 'GB/s');
  plain('limit.lz4_compress_2', limits.lz4NonZero[1].compressGbps, 'GB/s');
  plain('limit.lz4_decompress_2', limits.lz4NonZero[1].decompressGbps, 'GB/s');
  plain('limit.direct_write', Math.max(...limits.directWriteGbps), 'GB/s');
  figure({
    name: 'canonicalise',
    value: limits.canonicaliseGbps,
    unit: 'GB/s a core',
    limitName: 'memcpy',
    limit: limits.memcpyGbps,
    ratio: limits.canonicaliseGbps / limits.memcpyGbps,
    bar: '>= 5 GB/s a core',
    met: limits.canonicaliseGbps >= 5,
    note: `${limits.simd}; frames shuffled over all of memory: ${limits.canonicaliseRandomGbps.toPrecision(3)} GB/s`,
  });
}

async function mainXen(): Promise<void> {
  await benchXen(values.quick ? [128] : [128, 512, 1024]);
  if (values.write !== undefined)
    writeXenReport(values.write, figures(), `npm run bench -- --xen --write ${values.write}`);
}

async function mainPoints(): Promise<void> {
  const mostGib = Number(values.gib);
  const dir = mkdtempSync(join(values.dir, 'dormouse-bench-'));
  process.env.DORMOUSE_RUN_DIR = join(dir, 'run');
  try {
    await benchPoints({
      dir,
      costMibs: values.quick ? [256] : [1, 4, 16].filter((gib) => gib <= mostGib).map((gib) => gib * 1024),
      mib: values.quick ? 256 : Math.min(mostGib, 4) * 1024,
      dirty: values.quick ? [0, 100, 10_000] : [0, 10, 100, 1000, 10_000, 100_000],
      depths: values.quick ? [1, 10, 100] : [1, 10, 100, 1000, 2000],
      everyMs: [1000, 100],
      seconds: values.quick ? 5 : 60,
      rounds: values.quick ? 3 : 7,
    });
    await benchDeltas({
      dir,
      programs: ['writer', 'churner'],
      everyMs: [100, 1000],
      ages: values.quick ? [1, 8] : [1, 8, 32],
    });
    if (values.write !== undefined)
      writePointsReport(
        values.write,
        figures(),
        `npm run bench -- --points --gib ${values.gib} --write ${values.write}`,
      );
  } finally {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  }
}

async function mainEngine(): Promise<void> {
  const dir = mkdtempSync(join(values.dir, 'dormouse-bench-'));
  process.env.DORMOUSE_RUN_DIR = join(dir, 'run');
  try {
    const guestBytes = values.quick ? 2 ** 29 : Number(values.gib) * 2 ** 30;
    const mixed = mixedMemory(Math.min(guestBytes, 2 ** 31));
    process.stdout.write(`${JSON.stringify({ name: 'mixture', description: mixed.description })}\n`);
    const limits = measureLimits(dir, mixed.memory.subarray(0, 2 ** 29));
    printLimits(limits);
    const nonZero = withoutZeroPages(mixed.memory);
    await benchEngine({
      dir,
      guestBytes,
      corpus: mixed.memory,
      nonZero,
      nonZeroShare: nonZero.length / mixed.memory.length,
      limits,
      rounds: values.quick ? 1 : 5,
      qemuPath: values['peer-qemu'],
    });
    await benchPauses({
      dir,
      sizesGib: values.quick ? [1] : [1, 4, 8],
      samples: values.quick ? 50 : 200,
      limits,
    });
    await benchRollback({
      dir,
      sizesGib: values.quick ? [1] : [1, 4],
      differing: values.quick ? [0, 10_000] : [0, 100, 1000, 10_000, 30_000, 100_000],
      rounds: values.quick ? 3 : 7,
    });
    if (values.write !== undefined)
      writeEngineReport(
        values.write,
        figures(),
        mixed.description,
        `npm run bench -- --write ${values.write}`,
      );
  } finally {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  }
}

(values.xen ? mainXen() : values.points ? mainPoints() : mainEngine()).catch((thrown: unknown) => {
  process.stderr.write(`bench: ${asDormouseError(thrown).stack ?? String(thrown)}\n`);
  process.exitCode = 1;
});

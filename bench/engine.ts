/** Save, verify and restore of a guest of mixed memory, each beside the limit that bounds it. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Buffer } from 'node:buffer';
import { packageRoot } from '../src/addon.js';
import { checkpoint } from '../src/checkpoint/checkpoint.js';
import { embeddedConfig } from '../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { startHost, stopHost } from '../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../src/host/open/open_host.js';
import { verifyImage } from '../src/image/verify.js';
import { restore } from '../src/restore/restore.js';
import { save, type SaveResult } from '../src/save/save.js';
import { figure, median } from './figure.js';
import { measureLz4, measureSharedFirstTouch, type Limits } from './limits.js';
import { mixImage } from './mixed_guest.js';
import { QemuPeer } from './qemu.js';
import { receiveRound } from './receive.js';
import { pageBytes } from '../src/pfn/page_words.js';

export interface EngineBench {
  readonly dir: string;
  readonly guestBytes: number;
  readonly corpus: Buffer;
  /** The corpus without its zero pages, and how much of it that is. */
  readonly nonZero: Buffer;
  readonly nonZeroShare: number;
  readonly limits: Limits;
  readonly rounds: number;
  /** Where a QEMU is that is measured in the same run; absent, none is. */
  readonly qemuPath: string | undefined;
}

const guest = 'bench';
const gb = 1e9;
/** The host scrubs a destroyed guest's memory beside the next operation: not part of what is measured. */
const scrubMs = 2000;

async function idleImage(host: EmbeddedHost, path: string, guestBytes: number): Promise<void> {
  const memoryKib = guestBytes / 1024;
  const config = embeddedConfig({ program: 'idle', fillPercent: 0 });
  const spec = {
    name: guest,
    uuid: randomUUID(),
    type: 'pv',
    maxMemoryKib: memoryKib,
    vcpus: 1,
    config,
  } as const;
  const domid = await host.create(spec, { paused: false });
  await checkpoint(host, guest, path, { mode: 'light' });
  await host.destroy(domid);
}

const uncompressed = ['auto', 'none'] as const;

/** One save with LZ4, what two threads of LZ4 did just before it, and what the other compressions did: this machine's speed changes from minute to
 * minute.
 */
interface SaveRound {
  readonly saved: SaveResult;
  readonly others: Readonly<Record<(typeof uncompressed)[number], SaveResult>>;
  readonly lz4Gbps: number;
}

/** GB/s of guest memory that two cores of LZ4 or the disk allow, whichever is less. */
function saveLimit({ limits, nonZeroShare }: EngineBench, lz4Gbps: number): { name: string; gbps: number } {
  const byCompression = lz4Gbps / nonZeroShare;
  const byDisk = Math.max(...limits.directWriteGbps) / (nonZeroShare * limits.lz4NonZero[1].storedShare);
  return byCompression <= byDisk
    ? { name: '2 x LZ4 of the non-zero pages', gbps: byCompression }
    : { name: 'O_DIRECT write of the stored bytes', gbps: byDisk };
}

const rateOf = (saves: readonly SaveResult[]): number =>
  median(saves.map((done) => done.memoryBytes / done.elapsedMs / 1e6));

function reportSize(name: string, saved: SaveResult): void {
  figure({
    name,
    value: saved.storedBytes / gb,
    unit: 'GB',
    limitName: 'guest memory',
    limit: saved.memoryBytes / gb,
    ratio: saved.storedBytes / saved.memoryBytes,
  });
}

/** Pages that are not compressed are copied out of the guest by both cores, and written. */
function reportUncompressed(bench: EngineBench, rounds: readonly SaveRound[], lz4Gbps: number): void {
  const byCopy = (2 * pageBytes) / bench.limits.scatteredCopyUs / 1000 / bench.nonZeroShare;
  const byDisk = Math.max(...bench.limits.directWriteGbps) / bench.nonZeroShare;
  const limit = Math.min(byCopy, byDisk);
  for (const how of uncompressed) {
    const saves = rounds.map(({ others }) => others[how]);
    const gbps = rateOf(saves);
    figure({
      name: `save_${how}`,
      value: gbps,
      unit: 'GB/s of guest memory',
      limitName: byCopy < byDisk ? '2 x scattered copy' : 'O_DIRECT write of the pages',
      limit,
      ratio: gbps / limit,
      bar: how === 'auto' ? ">= lz4's, >= 0.8 of the limit" : '>= 0.8 of the limit',
      met: gbps >= 0.8 * limit && (how !== 'auto' || gbps >= lz4Gbps),
      note: `median of ${saves.length}; ${(gbps / lz4Gbps).toPrecision(3)} x the save with lz4`,
    });
    const last = saves.at(-1);
    if (last) reportSize(`image_size_${how}`, last);
  }
}

function reportSaves(bench: EngineBench, rounds: readonly SaveRound[]): void {
  const limit = saveLimit(bench, median(rounds.map(({ lz4Gbps }) => lz4Gbps)));
  const saves = rounds.map(({ saved }) => saved);
  const gbps = rateOf(saves);
  figure({
    name: 'save',
    value: gbps,
    unit: 'GB/s of guest memory',
    limitName: limit.name,
    limit: limit.gbps,
    ratio: gbps / limit.gbps,
    bar: '>= 0.8 of the limit',
    met: gbps >= 0.8 * limit.gbps,
    note: `${(bench.guestBytes / 2 ** 30).toString()} GiB, median of ${saves.length}, synced to disk; the limit is measured before each save`,
  });
  const last = saves.at(-1);
  if (last) reportSize('image_size', last);
  reportUncompressed(bench, rounds, gbps);
}

/** One restore, and what bounded it just before: decompression and the first touch of the guest's memory, on both cores. */
interface RestoreRound {
  readonly seconds: number;
  readonly decompressGbps: number;
  readonly touchGbps: number;
}

async function restoreRound(bench: EngineBench, seconds: () => Promise<number>): Promise<RestoreRound> {
  const { decompressGbps } = measureLz4(bench.nonZero, 2);
  const touchGbps = measureSharedFirstTouch();
  return { seconds: await seconds(), decompressGbps, touchGbps };
}

const restoreSeconds = async (host: EmbeddedHost, image: string): Promise<number> =>
  (await restore(host, image, { paused: false })).elapsedMs / 1000;

/** A page that is not zero is decompressed and touched; the two follow each other on each core. */
function reportRestores(
  bench: EngineBench,
  name: string,
  rounds: readonly RestoreRound[],
  from: string,
  leastShare?: number,
): void {
  const gbps = bench.guestBytes / median(rounds.map(({ seconds }) => seconds)) / gb;
  const limits = rounds.map(
    ({ decompressGbps, touchGbps }) => 1 / (1 / decompressGbps + 1 / touchGbps) / bench.nonZeroShare,
  );
  const limit = median(limits);
  figure({
    name,
    value: gbps,
    unit: 'GB/s of guest memory',
    limitName: '2 x LZ4 decompression, then 2 x first touch, of the non-zero pages',
    limit,
    ratio: gbps / limit,
    ...(leastShare !== undefined && {
      bar: `>= ${leastShare} of the limit`,
      met: gbps >= leastShare * limit,
    }),
    note:
      `${from}; each chunk checked as it is placed, median of ${rounds.length}; ` +
      `first touch ${median(rounds.map(({ touchGbps }) => touchGbps)).toPrecision(3)} GB/s`,
  });
}

/** QEMU's seconds of each round, for the same bytes. */
interface PeerRound {
  readonly save: number;
  readonly restore: number;
}

async function peerRound(peer: QemuPeer, dir: string): Promise<PeerRound> {
  const file = join(dir, 'peer.qemu');
  try {
    return { save: await peer.save(file), restore: await peer.restore(file) };
  } finally {
    rmSync(file, { force: true });
  }
}

function reportPeer(
  bench: EngineBench,
  rounds: readonly PeerRound[],
  saves: readonly SaveRound[],
  warm: readonly RestoreRound[],
): void {
  if (rounds.length === 0) return;
  const rate = (seconds: readonly number[]): number => bench.guestBytes / median(seconds) / gb;
  const ours = [
    ['save', 'save', undefined, rate(saves.map(({ saved }) => saved.elapsedMs / 1000))],
    ['save_auto', 'save', 2, rate(saves.map(({ others }) => others.auto.elapsedMs / 1000))],
    ['restore', 'restore', undefined, rate(warm.map(({ seconds }) => seconds))],
  ] as const;
  for (const [name, what, leastTimes, value] of ours) {
    const limit = rate(rounds.map((round) => round[what]));
    figure({
      name: `${name}_beside_qemu`,
      value,
      unit: 'GB/s of guest memory',
      limitName: `QEMU's mapped-ram with multifd, the same bytes`,
      limit,
      ratio: value / limit,
      ...(leastTimes !== undefined && { bar: `>= ${leastTimes} x QEMU's`, met: value >= leastTimes * limit }),
      note: `median of ${rounds.length}; QEMU's file holds every page as it is, ours is compressed and checked`,
    });
  }
}

async function benchVerify(bench: EngineBench, path: string): Promise<void> {
  const startedMs = performance.now();
  const report = await verifyImage(path);
  const seconds = (performance.now() - startedMs) / 1000;
  if (report.findings.length > 0) throw new Error('the image just written is damaged');
  const gbps = bench.guestBytes / seconds / gb;
  const limit = bench.limits.lz4NonZero[0].decompressGbps / bench.nonZeroShare;
  figure({
    name: 'verify',
    value: gbps,
    unit: 'GB/s of guest memory',
    limitName: '1 x LZ4 decompression',
    limit,
    ratio: gbps / limit,
    note: `${statSync(path).size.toString()} bytes read, every block decoded`,
  });
}

/** Anonymous memory of a process, in bytes; 0 once it has ended. Memory mapped from the guest is not its own. */
function anonymousBytes(pid: number): number {
  try {
    const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(line?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Most anonymous memory that `dormouse ARGS` takes, sampled each 5 ms. */
async function peakOfTool(args: string[]): Promise<number> {
  const tool = spawn(process.execPath, [join(packageRoot, 'bin/dormouse'), ...args], { stdio: 'ignore' });
  const { pid } = tool;
  if (pid === undefined) throw new Error('the tool did not start');
  let peak = 0;
  const timer = setInterval(() => (peak = Math.max(peak, anonymousBytes(pid))), 5);
  try {
    const code = await new Promise((resolve) => tool.once('exit', resolve));
    if (code !== 0) throw new Error(`dormouse ${args.join(' ')} ended with ${String(code)}`);
  } finally {
    clearInterval(timer);
  }
  return peak;
}

async function benchMemory(bench: EngineBench): Promise<void> {
  const pages = bench.guestBytes / pageBytes;
  const limit = 96 * 2 ** 20 + 24 * pages;
  const image = join(bench.dir, 'memory.dormouse');
  const host = ['--host', 'embedded:bench'];
  const saved = await peakOfTool([...host, 'save', guest, image]);
  const restored = await peakOfTool([...host, 'restore', image]);
  for (const [name, value] of [
    ['engine_memory_save', saved],
    ['engine_memory_restore', restored],
  ] as const)
    figure({
      name,
      value: value / 2 ** 20,
      unit: 'MiB of anonymous memory, peak',
      limitName: '96 MiB + 24 bytes a page',
      limit: limit / 2 ** 20,
      ratio: value / limit,
      bar: '<= the limit',
      met: value <= limit,
    });
  rmSync(image, { force: true });
}

/** Saves the guest, which is then restored from `image` to be saved once more. */
async function saveOther(
  bench: EngineBench,
  host: EmbeddedHost,
  image: string,
  compression: (typeof uncompressed)[number],
): Promise<SaveResult> {
  const path = join(bench.dir, 'other.dormouse');
  const saved = await save(host, guest, path, { then: 'destroy', compression });
  rmSync(path);
  await sleep(scrubMs);
  await restore(host, image, { paused: false });
  return saved;
}

/** Runs the rounds on a host of its own and prints the figures. */
export async function benchEngine(bench: EngineBench): Promise<void> {
  await startHost({ name: 'bench', memoryBytes: bench.guestBytes + 2 ** 28 });
  const host = await openEmbeddedHost('bench');
  const peer =
    bench.qemuPath === undefined ? undefined : new QemuPeer(bench.qemuPath, bench.guestBytes, bench.corpus);
  const image = join(bench.dir, 'mixed.dormouse');
  try {
    await idleImage(host, join(bench.dir, 'idle.dormouse'), bench.guestBytes);
    await mixImage(join(bench.dir, 'idle.dormouse'), image, bench.corpus);
    const saves: SaveRound[] = [];
    const cold: RestoreRound[] = [];
    const warm: RestoreRound[] = [];
    const received: RestoreRound[] = [];
    const peers: PeerRound[] = [];
    await restore(host, image, { paused: false });
    for (let round = 0; round < bench.rounds; round++) {
      const others = {
        auto: await saveOther(bench, host, image, 'auto'),
        none: await saveOther(bench, host, image, 'none'),
      };
      rmSync(image);
      const lz4Gbps = measureLz4(bench.nonZero, 2).compressGbps;
      saves.push({ saved: await save(host, guest, image, { then: 'destroy' }), others, lz4Gbps });
      await sleep(scrubMs);
      for (const restores of [cold, warm]) {
        restores.push(await restoreRound(bench, () => restoreSeconds(host, image)));
        if (restores === warm) continue;
        await host.destroy((await host.find(guest)).domid);
        await sleep(scrubMs);
      }
      received.push(await restoreRound(bench, () => receiveRound(host, guest, bench.dir)));
      if (peer) peers.push(await peerRound(peer, bench.dir));
    }
    reportPeer(bench, peers, saves, warm);
    reportSaves(bench, saves);
    reportRestores(bench, 'restore', warm, 'image in the page cache', 0.8);
    reportRestores(bench, 'restore_cold', cold, 'image on disk only', 0.8);
    reportRestores(bench, 'receive', received, 'a stream in the page cache, frames given before');
    await benchVerify(bench, image);
    await benchMemory(bench);
  } finally {
    peer?.close();
    await host.close();
    await stopHost('bench', { force: true });
  }
}

/** Points in time: what one costs by what changed, what its depth in a chain costs, and what the guest notices of it all. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { convertToImage } from '../src/convert/to_image.js';
import { embeddedConfig } from '../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { startHost, stopHost } from '../src/host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../src/host/open/open_host.js';
import { ImageReader } from '../src/image/reader.js';
import { PointSession, type TakenPoint } from '../src/protect/point_session.js';
import { protect } from '../src/protect/protect.js';
import { restore } from '../src/restore/restore.js';
import { PointStore } from '../src/store/store.js';
import { laneCount } from '../src/worker/pool.js';
import { figure, fitOf, median, quantile } from './figure.js';

const guest = 'points';
const bars = { interceptMs: 5, slopeUs: 4, pauseMs: 0.25, depth: 1.2, slowdown: 0.03 };
const pagesPerSecond = 5000;
/** As `dormouse protect` takes them. */
const asProtect = { mode: 'light', reason: 'protect', deltas: true } as const;

export interface PointsBench {
  readonly dir: string;
  /** Memory of the guests whose points' cost is measured. */
  readonly costMibs: readonly number[];
  /** Of the one that runs while points are taken. */
  readonly mib: number;
  /** Pages that change between two points. */
  readonly dirty: readonly number[];
  readonly depths: readonly number[];
  readonly everyMs: readonly number[];
  readonly seconds: number;
  readonly rounds: number;
}

interface Stage extends PointsBench {
  readonly host: EmbeddedHost;
  readonly domid: number;
  readonly store: PointStore;
  readonly folder: string;
}

interface GuestChoice {
  readonly mib: number;
  /** Steps a second, each to a page; 0: as fast as it can. */
  readonly rate: number;
  /** Pages that it writes to; 0: all. */
  readonly workingSetPages: number;
  readonly paused: boolean;
}

/** A guest in a host of its own, with memory for another one beside it, and an empty store. */
async function withGuest(
  bench: PointsBench,
  { mib, rate, workingSetPages, paused }: GuestChoice,
  use: (stage: Stage) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(bench.dir, 'store-'));
  await startHost({ name: 'points', memoryBytes: (2 * mib + 256) * 2 ** 20 });
  const host = await openEmbeddedHost('points');
  try {
    const config = embeddedConfig({
      program: 'writer',
      rate,
      workingSetPages,
      skewPercent: 0,
      fillPercent: 75,
    });
    const maxMemoryKib = mib * 1024;
    const spec = { name: guest, uuid: randomUUID(), type: 'pv', maxMemoryKib, vcpus: 1, config } as const;
    const domid = await host.create(spec, { paused });
    await use({ ...bench, mib, host, domid, folder, store: await PointStore.open(folder, { create: true }) });
  } finally {
    await host.close();
    await stopHost('points', { force: true });
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Lets it run for so many steps and some more; each writes to another page, mostly. */
async function runFor({ host, domid }: Stage, wanted: number): Promise<void> {
  const done = async (): Promise<number> => (await host.progress(domid)).steps[0] ?? 0;
  const until = (await done()) + wanted;
  await host.unpause(domid);
  while ((await done()) < until) await sleep(1);
}

/**
 * A point after so many steps and some more of the guest. It stands while the point is taken: what it missed it would catch up with at
 * once, and nobody could say how many pages that are.
 */
async function takeAfter(stage: Stage, session: PointSession, wanted: number): Promise<TakenPoint> {
  if (wanted > 0) {
    await runFor(stage, wanted);
    await stage.host.pause(stage.domid);
  }
  return await session.take(asProtect);
}

interface Pause {
  readonly pages: number;
  readonly ms: number;
}

/** The same of a guest that runs until it is paused for the point. */
async function pausesOf(stage: Stage, session: PointSession, wanted: number): Promise<Pause[]> {
  const pauses: Pause[] = [];
  for (let round = 0; round < stage.rounds; round++) {
    await runFor(stage, wanted);
    const { record } = await session.take(asProtect);
    await stage.host.pause(stage.domid);
    pauses.push({ pages: record.image.changedPages, ms: record.pauseMs });
  }
  return pauses;
}

interface Cost {
  readonly pages: number;
  readonly totalMs: number;
  readonly bytes: number;
}

async function costOf(stage: Stage, session: PointSession, pages: number): Promise<Cost> {
  const costs: Cost[] = [];
  for (let round = 0; round < stage.rounds; round++) {
    const { record } = await takeAfter(stage, session, pages);
    const { changedPages, storedBytes } = record.image;
    costs.push({ pages: changedPages, bytes: storedBytes, totalMs: record.elapsedMs });
  }
  const of = (what: keyof Cost): number => median(costs.map((cost) => cost[what]));
  return { pages: of('pages'), totalMs: of('totalMs'), bytes: of('bytes') };
}

/** A snapshot: it takes the dirty log and copies no page. */
function reportPauses({ mib }: Stage, pauses: readonly Pause[]): void {
  const { interceptMs, slopeUs } = fitOf(pauses);
  const times = pauses.map(({ ms }) => ms);
  const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  const most = Math.max(...pauses.map(({ pages }) => pages));
  figure({
    name: `point_pause_p50_${mib}mib`,
    ...{ value: p50, unit: 'ms', ratio: p50 / bars.pauseMs },
    ...{ bar: `<= ${bars.pauseMs} ms`, met: p50 <= bars.pauseMs },
    note:
      `${pauses.length} points, up to ${most} changed pages; p99 ${p99.toPrecision(3)} ms; ` +
      `fit ${interceptMs.toPrecision(2)} ms and ${(slopeUs * 1000).toPrecision(2)} ns a changed page`,
  });
}

function reportCosts({ mib, rounds }: Stage, costs: readonly Cost[]): void {
  for (const { pages, totalMs, bytes } of costs) {
    const limit = bars.interceptMs + (bars.slopeUs * pages) / 1000;
    figure({
      name: `point_${mib}mib_${pages}`,
      value: totalMs,
      unit: 'ms',
      ...{ limitName: '5 ms + 4 us a changed page', limit, ratio: totalMs / limit },
      ...{ bar: '<= the limit', met: totalMs <= limit },
      note: `median of ${rounds}; ${Math.round(bytes / 1024)} KiB`,
    });
  }
  const { interceptMs, slopeUs } = fitOf(costs.map(({ pages, totalMs }) => ({ pages, ms: totalMs })));
  figure({
    name: `point_fit_${mib}mib`,
    ...{ value: slopeUs, unit: 'us a changed page' },
    bar: `<= ${bars.slopeUs} us, after <= ${bars.interceptMs} ms`,
    met: slopeUs <= bars.slopeUs && interceptMs <= bars.interceptMs,
    note: `intercept ${interceptMs.toPrecision(3)} ms`,
  });
}

async function benchCosts(stage: Stage): Promise<void> {
  const session = await PointSession.open(stage.host, guest, stage.store);
  try {
    await session.take(asProtect);
    await costOf(stage, session, 0);
    const costs: Cost[] = [];
    for (const pages of stage.dirty) costs.push(await costOf(stage, session, pages));
    reportCosts(stage, costs);
    const pauses: Pause[] = [];
    for (const pages of stage.dirty) pauses.push(...(await pausesOf(stage, session, pages)));
    reportPauses(stage, pauses);
  } finally {
    await session.end();
  }
}

interface Opened {
  readonly openMs: number;
  readonly restoreMs: number;
}

/** With the files in the page cache. */
async function openedIn(host: EmbeddedHost, path: string, rounds: number): Promise<Opened> {
  const times: Opened[] = [];
  for (let round = 0; round <= rounds; round++) {
    let startedMs = performance.now();
    (await ImageReader.open(path, { lanes: laneCount })).close();
    const openMs = performance.now() - startedMs;
    startedMs = performance.now();
    const { domid } = await restore(host, path, { paused: true, name: 'again', trustConfig: true });
    times.push({ openMs, restoreMs: performance.now() - startedMs });
    await host.destroy(domid);
  }
  const warm = times.slice(1);
  return {
    openMs: median(warm.map(({ openMs }) => openMs)),
    restoreMs: median(warm.map(({ restoreMs }) => restoreMs)),
  };
}

/** A point beside an image of all of it, coded anew. */
async function compareDepth(
  { host, rounds, folder, mib }: Stage,
  path: string,
  depth: number,
): Promise<void> {
  const whole = join(folder, 'whole.dormouse');
  const reader = await ImageReader.open(path, { lanes: laneCount });
  await convertToImage(reader, whole, { compression: 'lz4' });
  reader.close();
  const [deep, full] = [await openedIn(host, path, rounds), await openedIn(host, whole, rounds)];
  rmSync(whole);
  figure({
    name: `restore_depth_${depth}`,
    ...{ value: deep.restoreMs, unit: 'ms', limitName: 'the same as a full image', limit: full.restoreMs },
    ratio: deep.restoreMs / full.restoreMs,
    ...{ bar: `<= ${bars.depth} x`, met: deep.restoreMs <= bars.depth * full.restoreMs },
    note: `${mib} MiB, median of ${rounds}; opening ${deep.openMs.toPrecision(3)} ms, of the full one ${full.openMs.toPrecision(3)} ms`,
  });
}

async function benchDepths(stage: Stage): Promise<void> {
  const session = await PointSession.open(stage.host, guest, stage.store);
  try {
    // The first is none deep.
    for (let depth = 0; depth <= Math.max(...stage.depths); depth++) {
      const { path } = await takeAfter(stage, session, 20);
      if (stage.depths.includes(depth)) await compareDepth(stage, path, depth);
    }
  } finally {
    await session.end();
  }
}

/** Steps a second of the guest, for so long. */
async function paceOf({ host, domid }: Stage, seconds: number): Promise<number> {
  const stepsNow = async (): Promise<number> => {
    const { steps } = await host.progress(domid);
    return steps.reduce((sum, done) => sum + done, 0);
  };
  const [before, startedMs] = [await stepsNow(), performance.now()];
  await sleep(seconds * 1000);
  const done = (await stepsNow()) - before;
  return done / ((performance.now() - startedMs) / 1000);
}

/** The guest before, during and after; the first point, which is a whole one, is apart. */
async function benchEvery(stage: Stage, everyMs: number): Promise<void> {
  const { host, folder, seconds, mib } = stage;
  const before = await paceOf(stage, seconds);
  const stop = new AbortController();
  const pausesMs: number[] = [];
  const running = protect(host, guest, folder, {
    ...({ everyMs, patient: true, mode: 'light', reason: 'protect', overBudget: 'take' } as const),
    ...{ retention: { last: 20 }, minFreeBytes: 0, signal: stop.signal },
    onPoint: ({ record }) => pausesMs.push(record.pauseMs),
  });
  while (pausesMs.length === 0) await Promise.race([running, sleep(10)]);
  pausesMs.length = 0;
  const during = await paceOf(stage, seconds);
  const taken = pausesMs.length;
  stop.abort();
  await running;
  const plain = (before + (await paceOf(stage, seconds))) / 2;
  const slowdown = 1 - during / plain;
  figure({
    name: `guest_slowdown_every_${everyMs}ms_${mib}mib`,
    ...{ value: slowdown * 100, unit: '%', ratio: during / plain },
    ...{ bar: `<= ${bars.slowdown * 100} %`, met: slowdown <= bars.slowdown },
    note:
      `${taken} points in ${seconds} s (${Math.floor((seconds * 1000) / everyMs)} wanted), pause p50 ${median(pausesMs).toPrecision(3)} ms; ` +
      `${Math.round(during)} steps/s, unprotected ${Math.round(plain)}`,
  });
}

export async function benchPoints(bench: PointsBench): Promise<void> {
  const stands = { rate: 20_000, workingSetPages: 0, paused: true };
  for (const mib of bench.costMibs) await withGuest(bench, { mib, ...stands }, benchCosts);
  await withGuest(bench, { mib: Math.min(bench.mib, 256), ...stands }, benchDepths);
  for (const everyMs of bench.everyMs) {
    // With a rate it would catch up with what it missed: as fast as it can, but that many pages a second all the same.
    const workingSetPages = (pagesPerSecond * everyMs) / 1000;
    const runs = { mib: bench.mib, rate: 0, workingSetPages, paused: false };
    await withGuest(bench, runs, (stage) => benchEvery(stage, everyMs));
  }
}

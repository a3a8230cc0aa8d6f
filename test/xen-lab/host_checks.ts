/**
 * Checks of the xen host, run in dom0: node host_checks.js CHECK DOMAIN [ARG...]
 * Each prints one line of JSON with what it saw and exits 0, or throws.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Lease, MemoryView } from '../../src/host/contract.js';
import { openXenHost, type XenHost } from '../../src/host/xen/host.js';
import { bit, type Check, logBegunByXl, logLeftToXl, logTakenOver, ones } from './log_checks.js';
import { type Undoable, XenLease } from '../../src/host/xen/leases.js';
import { loadXen } from '../../src/host/xen/native.js';
import { steps } from '../../src/worker/steps.js';
import { pageBytes } from '../../src/pfn/page_words.js';

const batchPages = 1024;

const typeOf = (entry: bigint): number => Number(entry >> 60n);
const hasBody = (type: number): boolean => type < 0xd;
const isTable = (type: number): boolean => hasBody(type) && (type & 7) >= 1 && (type & 7) <= 4;

function entriesOf(view: MemoryView, nrPfns: number): BigUint64Array {
  const all = new BigUint64Array(nrPfns);
  for (let first = 0; first < nrPfns; first += batchPages)
    all.set(steps().queryPages(view.handle, first, Math.min(batchPages, nrPfns - first)), first);
  return all;
}

/** Every page that has a body, as it is, by pfn. */
function copyOf(view: MemoryView, entries: BigUint64Array): Map<number, Buffer> {
  const pfns = [...entries.keys()].filter((pfn) => hasBody(typeOf(entries[pfn] ?? 0n)));
  const pages = new Map<number, Buffer>();
  for (let at = 0; at < pfns.length; at += batchPages) {
    const batch = pfns.slice(at, at + batchPages);
    const bytes = steps().readPages(view.handle, BigUint64Array.from(batch, BigInt));
    batch.forEach((pfn, i) => pages.set(pfn, bytes.subarray(i * pageBytes, (i + 1) * pageBytes)));
  }
  return pages;
}

function differing(before: Map<number, Buffer>, after: Map<number, Buffer>): number[] {
  const pfns = [...new Set([...before.keys(), ...after.keys()])].sort((a, b) => a - b);
  return pfns.filter((pfn) => {
    const [a, b] = [before.get(pfn), after.get(pfn)];
    return !a || !b || !a.equals(b);
  });
}

/** As `xl list` shows them, but for times and for whether a vCPU runs or blocks, which change while one looks. */
const list: Check = async (host) => {
  const shown = execFileSync('xl', ['list'], { encoding: 'utf8' }).trimEnd().split('\n').slice(1);
  const ours = (await host.list()).map((info) => {
    const letter = { poweroff: '-', reboot: 'r', suspend: 's', crash: 'c', watchdog: 'w', soft_reset: 'S' };
    const state = [
      '--',
      info.paused ? 'p' : '-',
      info.shutdown ? 's' : '-',
      info.shutdown ? letter[info.shutdown] : '-',
      info.dying ? 'd' : '-',
    ].join('');
    return [info.name, info.domid, Math.floor(info.memoryKib / 1024), info.vcpus, state];
  });
  const theirs = shown.map((row) => {
    const [name, domid, memory, vcpus, state] = row.split(/\s+/);
    return [name, Number(domid), Number(memory), Number(vcpus), `--${(state ?? '').slice(2)}`];
  });
  assert.deepEqual(ours, theirs);
  return { domains: ours.length };
};

/** Suspends and resumes many times: each time the guest runs again and nothing of ours is left. */
const suspend: Check = async (host, { domid }, [times = '20']) => {
  const suspendMs: number[] = [];
  const resumeMs: number[] = [];
  for (let i = 0; i < Number(times); i++) {
    const lease = await host.acquire(domid, 'checkpoint');
    const start = performance.now();
    await host.suspend(lease, 30_000);
    assert.equal((await host.info(domid)).shutdown, 'suspend');
    const stopped = performance.now();
    await host.resumeInPlace(lease);
    suspendMs.push(stopped - start);
    resumeMs.push(performance.now() - stopped);
    await lease.release();
    assert.equal((await host.info(domid)).shutdown, null);
    await sleep(300);
  }
  const median = (all: number[]): number =>
    Number([...all].sort((a, b) => a - b)[all.length >> 1]?.toFixed(2));
  return { times: Number(times), suspendMs: median(suspendMs), resumeMs: median(resumeMs) };
};

/** A paused guest reads the same twice, through the kept mapping and through a new one. */
const copyTwice: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'checkpoint');
  await host.holdPaused(lease);
  const { nrPfns } = await host.geometry(domid);
  const startMs = performance.now();
  const view = await host.openMemory(domid);
  const mapMs = performance.now() - startMs;
  const first = copyOf(view, entriesOf(view, nrPfns));
  const copyStartMs = performance.now();
  const second = copyOf(view, entriesOf(view, nrPfns));
  const copyMs = performance.now() - copyStartMs;
  assert.deepEqual(differing(first, second), []);
  view.close();
  await lease.release();
  return { pages: first.size, mapMs: Math.round(mapMs), copyMs: Math.round(copyMs) };
};

/** Page types of a paused PV guest, counted; `oracle` is a program that counts them by libxenguest. */
const pageTypes: Check = async (host, { domid }, [oracle = '']) => {
  const lease = await host.acquire(domid, 'checkpoint');
  await host.holdPaused(lease);
  const { nrPfns } = await host.geometry(domid);
  const view = await host.openMemory(domid);
  const counts = new Array<number>(16).fill(0);
  for (const entry of entriesOf(view, nrPfns)) counts[typeOf(entry)] = (counts[typeOf(entry)] ?? 0) + 1;
  const expected = execFileSync(oracle, [String(domid)], { encoding: 'utf8' })
    .trim()
    .split(' ')
    .map(Number);
  view.close();
  await lease.release();
  assert.deepEqual([nrPfns, ...counts], expected);
  return { nrPfns, counts };
};

/** At its suspend point every page table of a PV guest canonicalises, and its state has the right shape. */
const canonical: Check = async (host, { domid, type, vcpus }) => {
  const lease = await host.acquire(domid, 'save');
  await host.suspend(lease, 30_000);
  const geometry = await host.geometry(domid);
  const state = await host.readState(domid);
  const view = await host.openMemory(domid);
  const tracker = steps().trackerCreate(geometry.nrPfns);
  const recordStartMs = performance.now();
  steps().trackerRecord(tracker, view.handle, 0, geometry.nrPfns);
  const compareStartMs = performance.now();
  const changed = ones(steps().trackerChanged(tracker, view.handle, 2));
  const compareMs = performance.now() - compareStartMs;
  const tables = [...entriesOf(view, geometry.nrPfns)].filter((entry) => isTable(typeOf(entry))).length;
  steps().trackerRelease(tracker);
  view.close();
  await host.resumeInPlace(lease);
  await lease.release();
  // A table that cannot be canonicalised counts as changed.
  assert.deepEqual(changed, []);
  assert.equal(state.tscInfo.length, 24);
  assert.equal(state.cpuidPolicy.length % 24, 0);
  assert.equal(state.msrPolicy.length % 16, 0);
  assert.ok(state.cpuidPolicy.length > 0);
  if (type === 'pv') {
    assert.ok(tables > 0);
    assert.equal(geometry.p2mFrames.length, Math.ceil(geometry.nrPfns / 512));
    assert.equal(state.vcpus.length, vcpus);
    for (const vcpu of state.vcpus) {
      assert.equal(vcpu.basic.length, 5168);
      assert.equal(vcpu.extended.length, 64);
      assert.ok(vcpu.xsave.length >= 16);
      assert.equal(vcpu.msrs.length % 16, 0);
    }
    assert.equal(state.sharedInfo.length, pageBytes);
    assert.equal(Number(state.sharedInfo.readBigUInt64LE(3088)), geometry.nrPfns);
  } else {
    assert.ok(state.hvmContext.length > 0);
    assert.equal(state.hvmParams.length, 8 + 16 * state.hvmParams.readUInt32LE(0));
  }
  return {
    nrPfns: geometry.nrPfns,
    tables,
    recordMs: Math.round(compareStartMs - recordStartMs),
    compareMs: Math.round(compareMs),
    xsave: state.vcpus[0]?.xsave.length,
    msrs: state.vcpus[0]?.msrs.length,
    hvmContext: state.hvmContext.length,
    hvmParams: state.hvmParams.length,
  };
};

/** The content tracker finds exactly the pages whose bytes changed while the guest ran (tables: at least those). */
const contentTracker: Check = async (host, { domid }, [ranMs = '3000']) => {
  const lease = await host.acquire(domid, 'checkpoint');
  await host.holdPaused(lease);
  const { nrPfns } = await host.geometry(domid);
  const view = await host.openMemory(domid);
  const tracker = steps().trackerCreate(nrPfns);
  const entries = entriesOf(view, nrPfns);
  const before = copyOf(view, entries);
  steps().trackerRecord(tracker, view.handle, 0, nrPfns);
  await host.releasePaused(lease);
  await sleep(Number(ranMs));
  await host.holdPaused(lease);
  view.catchUp?.(false);
  const startMs = performance.now();
  const found = new Set(ones(steps().trackerChanged(tracker, view.handle, 2)));
  const compareMs = performance.now() - startMs;
  const nowEntries = entriesOf(view, nrPfns);
  const changed = differing(before, copyOf(view, nowEntries));
  const tables = (pfn: number): boolean =>
    isTable(typeOf(entries[pfn] ?? 0n)) || isTable(typeOf(nowEntries[pfn] ?? 0n));
  const retyped = [...entries.keys()].filter(
    (pfn) => typeOf(entries[pfn] ?? 0n) !== typeOf(nowEntries[pfn] ?? 0n),
  );
  steps().trackerRelease(tracker);
  view.close();
  await lease.release();
  const missed = changed.filter((pfn) => !found.has(pfn) && !tables(pfn));
  assert.deepEqual(missed, [], 'changed and not found');
  assert.deepEqual(
    retyped.filter((pfn) => !found.has(pfn)),
    [],
    'retyped and not found',
  );
  const expected = new Set([...changed, ...retyped]);
  const invented = [...found].filter((pfn) => !expected.has(pfn) && !tables(pfn));
  assert.deepEqual(invented, [], 'found and not changed');
  assert.ok(changed.length > 0, 'the guest changed nothing');
  return {
    changed: changed.length,
    found: found.size,
    retyped: retyped.length,
    compareMs: Math.round(compareMs),
  };
};

/** What log-dirty says covers every page whose bytes changed. */
const logDirty: Check = async (host, { domid }, [ranMs = '3000']) => {
  const lease = await host.acquire(domid, 'checkpoint');
  const tracker = await host.tracker(lease);
  await host.holdPaused(lease);
  const { nrPfns } = await host.geometry(domid);
  const view = await host.openMemory(domid);
  await tracker.readAndClear();
  const ofOthers = Buffer.alloc(Math.ceil(nrPfns / 8));
  loadXen().api.markSharedPages(domid, nrPfns, ofOthers);
  assert.deepEqual(ones(await tracker.peek()), ones(ofOthers), 'but for what others may write to');
  const before = copyOf(view, entriesOf(view, nrPfns));
  await host.releasePaused(lease);
  await sleep(Number(ranMs));
  await host.holdPaused(lease);
  view.catchUp?.(false);
  const startMs = performance.now();
  const dirty = await tracker.peek();
  const readMs = performance.now() - startMs;
  const changed = differing(before, copyOf(view, entriesOf(view, nrPfns)));
  await tracker.off();
  view.close();
  await lease.release();
  const missed = changed.filter((pfn) => !bit(dirty, pfn));
  assert.ok(changed.length > 0, 'the guest changed nothing');
  assert.deepEqual(missed, [], 'changed and not dirty');
  return { changed: changed.length, dirty: ones(dirty).length, readMs: Number(readMs.toFixed(2)) };
};

/** A host without log-dirty for this domain says so and leaves nothing behind. */
const logDirtyRefused: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'checkpoint');
  await assert.rejects(host.tracker(lease), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'HOST_LACKS');
    assert.match(error.message, /shadow paging/);
    return true;
  });
  await lease.release();
  return {};
};

/** A second lease is refused while the first is held, and given after it. */
const locked: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'save');
  await assert.rejects(host.acquire(domid, 'save'), { code: 'LOCKED' });
  await lease.release();
  await (await host.acquire(domid, 'save')).release();
  return {};
};

/** As one that is killed between the note and what it notes. */
function noteOnly(lease: Lease, what: Undoable): void {
  assert.ok(lease instanceof XenLease);
  lease.note(what);
}

/** The guest takes a request to suspend, and does not suspend: it stands paused while we blank the request in its place. */
async function takeRequest(host: XenHost, lease: Lease): Promise<void> {
  const control = `/local/domain/${lease.domid}/control/shutdown`;
  host.suspend(lease, 600_000).catch(() => undefined);
  await host.pause(lease.domid);
  while ((await host.xenstore.read(control)) !== 'suspend') await sleep(5);
  await host.xenstore.write(control, '');
  await host.unpause(lease.domid);
}

/** For a guest that somebody without a lease suspended. */
const resume: Check = async (host, { domid }) => {
  loadXen().api.resumeInPlace(domid);
  await host.xenstore.resumeDomain(domid);
  return {};
};

/** A pause beside the user's own is taken back, and the user's stays. */
const pauseOver: Check = async (host, { domid }) => {
  await host.pause(domid);
  const lease = await host.acquire(domid, 'digest');
  await host.holdPaused(lease);
  await lease.release();
  assert.equal((await host.find(String(domid))).paused, true);
  // As if killed between the note and the call.
  const second = await host.acquire(domid, 'digest');
  noteOnly(second, 'pause over');
  await second.release();
  assert.equal((await host.find(String(domid))).paused, true, 'the user paused it');
  await host.unpause(domid);
  assert.equal((await host.find(String(domid))).paused, false);
  return {};
};

/** Stops the guest in the way named and stays, for somebody to kill. */
const hold: Check = async (host, { domid }, [what = 'suspend']) => {
  const lease = await host.acquire(domid, 'save');
  const view = await host.openMemory(domid);
  if (what === 'logdirty') await host.tracker(lease);
  if (what === 'pause') await host.holdPaused(lease);
  if (what === 'suspend') await host.suspend(lease, 30_000);
  if (what === 'noted') noteOnly(lease, 'suspend 0123456789abcdef');
  if (what === 'taken') await takeRequest(host, lease);
  process.stdout.write(`holding ${view.handle}\n`);
  await sleep(600_000);
  return {};
};

/** Takes and gives back a lease: what a dead process left is undone first. */
const takeOver: Check = async (host, { domid }) => {
  await (await host.acquire(domid, 'save')).release();
  const { paused, shutdown } = await host.info(domid);
  assert.deepEqual({ paused, shutdown }, { paused: false, shutdown: null });
  return {};
};

/** Nothing of a destroyed domain stays, even though its memory was mapped. */
const destroy: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'save');
  const view = await host.openMemory(domid);
  copyOf(view, entriesOf(view, (await host.geometry(domid)).nrPfns));
  view.close();
  await host.destroy(domid);
  const left = (await host.list()).map((info) => info.domid);
  assert.ok(!left.includes(domid), `domain ${domid} is still there`);
  await lease.release();
  return {};
};

/** Xenstore: what was written is read, listed, watched and removed; a transaction retries. */
const store: Check = async (host) => {
  const base = `/tool/dormouse-check-${process.pid}`;
  const { xenstore } = host;
  assert.equal(await xenstore.read(`${base}/a`), null);
  const seen: string[] = [];
  const stop = await xenstore.watch(base, (path) => seen.push(path));
  await xenstore.write(`${base}/a`, 'one');
  assert.equal(await xenstore.read(`${base}/a`), 'one');
  let tries = 0;
  await xenstore.transaction(async (tx) => {
    const value = await tx.read(`${base}/a`);
    if (++tries === 1) await xenstore.write(`${base}/a`, 'meddled');
    await tx.write(`${base}/b`, `${value}+`);
  });
  assert.equal(await xenstore.read(`${base}/b`), 'meddled+');
  assert.equal(tries, 2);
  for (let i = 0; i < 900; i++) await xenstore.write(`${base}/many/name-${i}`, '');
  const names = await xenstore.list(`${base}/many`);
  assert.equal(new Set(names).size, 900);
  await stop();
  await xenstore.remove(base);
  assert.deepEqual(await xenstore.list(base), []);
  assert.ok(seen.includes(base) && seen.includes(`${base}/a`));
  return { tries, watched: seen.length };
};

/** A guest that does not answer in time gets the request taken back and runs on. */
const suspendTimeout: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'save');
  const asked = host.suspend(lease, 1500);
  await Promise.all([assert.rejects(asked, { code: 'SUSPEND_TIMEOUT' }), host.pause(domid)]);
  await host.unpause(domid);
  assert.equal(await host.xenstore.read(`/local/domain/${domid}/control/shutdown`), '');
  await lease.release();
  await sleep(2000);
  const { shutdown, paused } = await host.info(domid);
  assert.deepEqual({ shutdown, paused }, { shutdown: null, paused: false });
  return {};
};

/** A lease whose watcher is gone still gives the guest back. */
const watcherKilled: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'save');
  await host.suspend(lease, 30_000);
  execFileSync('sh', ['-c', 'kill -9 $(pidof dormouse-xen-watcher-4_17)']);
  await sleep(200);
  await lease.release();
  const { shutdown } = await host.info(domid);
  assert.equal(shutdown, null);
  return {};
};

/** A guest with virtual NUMA nodes: no lease for an image, but one for a dump. */
const vnuma: Check = async (host, { domid }) => {
  for (const operation of ['save', 'checkpoint'] as const)
    await assert.rejects(host.acquire(domid, operation), { code: 'HOST_LACKS', message: /vnuma/ });
  await (await host.acquire(domid, 'dump')).release();
  return {};
};

/** Everything that is told of the domain until it is gone; each event is a line. */
const events: Check = async (host, { domid }) => {
  await new Promise<void>((resolve) => {
    const stop = host.onEvent((event) => {
      if (event.type !== 'lost' && event.domid !== domid) return;
      process.stdout.write(`${JSON.stringify(event)}\n`);
      if (event.type !== 'released') return;
      stop();
      resolve();
    });
    process.stdout.write('listening\n');
    // The socket of xenstored holds nobody.
    setTimeout(resolve, 600_000);
  });
  process.exit();
};

const checks: Record<string, Check> = {
  suspendTimeout,
  watcherKilled,
  list,
  suspend,
  copyTwice,
  pageTypes,
  canonical,
  contentTracker,
  logDirty,
  logDirtyRefused,
  logTakenOver,
  logBegunByXl,
  logLeftToXl,
  resume,
  pauseOver,
  locked,
  hold,
  takeOver,
  destroy,
  store,
  vnuma,
  events,
};

const [name = '', domain = '0', ...args] = process.argv.slice(2);
const check = checks[name];
if (!check) throw new Error(`no check '${name}': ${Object.keys(checks).join(', ')}`);
const host = await openXenHost();
try {
  const seen = await check(host, await host.find(domain), args);
  process.stdout.write(`${JSON.stringify({ check: name, ...seen })}\n`);
} finally {
  await host.close();
}

/** Checks of the dirty log between us and xl, for host_checks.ts. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DormouseError } from '../../src/errors.js';
import type { DomainInfo } from '../../src/domain/state.js';
import type { Lease, Tracker } from '../../src/host/contract.js';
import type { XenHost } from '../../src/host/xen/host.js';
import { loadXen } from '../../src/host/xen/native.js';

export type Check = (host: XenHost, domain: DomainInfo, args: string[]) => Promise<object>;

export const bit = (bitmap: Buffer, at: number): boolean => ((bitmap[at >> 3] ?? 0) & (1 << (at & 7))) !== 0;

/** Which bits of a bitmap are set. */
export function ones(bitmap: Buffer): number[] {
  const out: number[] = [];
  for (let at = 0; at < bitmap.length * 8; at++) if (bit(bitmap, at)) out.push(at);
  return out;
}

/** Starts `xl migrate` to a receiver that says it is ready and then reads nothing; ends that one after `liveMs`. */
async function migrateNowhere(domid: number, liveMs: number): Promise<ChildProcess> {
  const receiver = `printf 'xl migration receiver ready, send binary domain data.\\n'; sleep ${liveMs / 1000}`;
  const xl = spawn(
    'xl',
    ['migrate', '-s', `sh -c "${receiver.replaceAll('"', '\\"')}" --`, String(domid), 'x'],
    {
      stdio: 'ignore',
    },
  );
  for (let i = 0; i < 300; i++) {
    if (spawnSync('pidof', ['libxl-save-helper']).status === 0) return xl;
    await sleep(50);
  }
  throw new Error('xl migrate does not begin');
}

const watcher = '/project/build/Release/dormouse-xen-watcher-4_17';

/** The pfns in the dirty log as it is, whoever uses it. */
async function dirtyNow(host: XenHost, domid: number): Promise<Set<number>> {
  const { nrPfns } = await host.geometry(domid);
  const listed = execFileSync('/tmp/dirty_peek', [String(domid), String(nrPfns)], {
    encoding: 'utf8',
    maxBuffer: 2 ** 24,
  });
  return new Set(listed.trim().split('\n').filter(Boolean).map(Number));
}

/** The log is on and nobody is at it: refused with the line that ends it, which is run. */
async function endLogLeftOn(host: XenHost, domid: number): Promise<void> {
  const lease = await host.acquire(domid, 'checkpoint');
  const line = `${watcher} end-log ${domid}`;
  await assert.rejects(host.tracker(lease), (error: DormouseError) => {
    assert.equal(error.code, 'LOCKED');
    assert.ok(error.details[0]?.endsWith(line), error.details[0]);
    return true;
  });
  await lease.release();
  execFileSync('sh', ['-c', line]);
}

/** Whatever `meddle` does, what xl's dirty log holds stays in it. Returns how many pages that are. */
async function keepsLogOfXl(host: XenHost, domid: number, meddle: () => Promise<void>): Promise<number> {
  const xl = await migrateNowhere(domid, 15_000);
  await sleep(1500);
  const before = await dirtyNow(host, domid);
  await meddle();
  const after = await dirtyNow(host, domid);
  assert.equal(spawnSync('pidof', ['libxl-save-helper']).status, 0, 'xl is still at it');
  assert.ok(before.size > 0, 'the guest writes');
  const lost = [...before].filter((pfn) => !after.has(pfn));
  assert.deepEqual(lost, [], 'xl would miss them');
  await once(xl, 'exit');
  return before.size;
}

/** An xl migrate that begins between our lease and our log keeps its log. */
export const logBegunByXl: Check = async (host, { domid }) => {
  const lease = await host.acquire(domid, 'checkpoint');
  const dirty = await keepsLogOfXl(host, domid, async () => {
    await assert.rejects(host.tracker(lease), { code: 'LOCKED' });
  });
  await lease.release();
  await endLogLeftOn(host, domid);
  return { dirty };
};

/** One that takes our log over keeps it when we are killed: the watcher leaves it alone. */
export const logLeftToXl: Check = async (host, { domid, name }) => {
  const [, script = ''] = process.argv;
  const holder = spawn(process.execPath, [script, 'hold', name, 'logdirty'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  const dirty = await keepsLogOfXl(host, domid, async () => {
    holder.kill('SIGKILL');
    for (let i = 0; existsSync(`/run/dormouse/xen/${domid}.lock`); i++) {
      assert.ok(i < 100, 'the lease ends');
      await sleep(50);
    }
  });
  await endLogLeftOn(host, domid);
  return { dirty };
};

/** What libxl takes of the dirty log, or ends, is told; a log that is on already is not ours to take. */
export const logTakenOver: Check = async (host, { domid }) => {
  const taken = { code: 'LOCKED' };
  const { api } = loadXen();
  const begin = async (): Promise<{ lease: Lease; tracker: Tracker }> => {
    const lease = await host.acquire(domid, 'checkpoint');
    return { lease, tracker: await host.tracker(lease) };
  };
  api.logDirtyOn(domid);
  await endLogLeftOn(host, domid);
  const first = await begin();
  const xl = await migrateNowhere(domid, 5000);
  await assert.rejects(first.tracker.readAndClear(), taken);
  await first.lease.release();
  await assert.rejects(host.acquire(domid, 'checkpoint'), taken);
  await once(xl, 'exit');
  // xl, whose receiver died, leaves it on.
  await endLogLeftOn(host, domid);

  // One that comes and goes between two looks, and is killed: the log is on, without what it had.
  const second = await begin();
  await sleep(1000);
  await once(await migrateNowhere(domid, 1000), 'exit');
  await assert.rejects(second.tracker.readAndClear(), taken);
  await second.lease.release();

  const third = await begin();
  api.logDirtyOff(domid);
  await assert.rejects(third.tracker.off(), taken);
  await third.lease.release();
  const last = await begin();
  await sleep(500);
  await last.tracker.readAndClear();
  await last.tracker.off();
  await last.lease.release();
  return {};
};

/**
 * Light checkpoints in a row, run in dom0: node live_checks.js DOMAIN TIMES FILE. Prints one line of JSON: pauses, and what
 * was held after the first few and at the end. An image is verified now and then; each is removed.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { openXenHost } from '../../src/host/xen/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { steps } from '../../src/worker/steps.js';

const verifyEvery = 25;
/** Checkpoints after which nothing may grow any more. */
const settled = 20;
const rssSlackMib = 24;
const xenSlackMib = 2;

const quantile = (sorted: readonly number[], q: number): number =>
  Number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]?.toFixed(3));

interface Held {
  readonly files: number;
  /** Mappings of other domains' memory. */
  readonly foreignMappings: number;
  readonly rssMib: number;
  readonly xenstoreNodes: number;
  /** Memory that Xen has left, its own heap included. */
  readonly xenFreeMib: number;
}

/** Once the pipes of the last lease's watcher are closed. */
async function held(): Promise<Held> {
  await sleep(1000);
  const run = (program: string, ...args: string[]): string =>
    execFileSync(program, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  return {
    files: readdirSync('/proc/self/fd').length,
    foreignMappings: (readFileSync('/proc/self/maps', 'utf8').match(/privcmd/g) ?? []).length,
    rssMib: Math.round(process.memoryUsage().rss / 2 ** 20),
    xenstoreNodes: run('xenstore-ls').split('\n').length,
    xenFreeMib: Number(/^free_memory *: (\d+)/m.exec(run('xl', 'info'))?.[1]),
  };
}

const [, , name = '', times = '1', image = ''] = process.argv;
const host = await openXenHost();
const pausesMs: number[] = [];
const elapsedMs: number[] = [];
let before: Held | undefined;
const shutdowns = new Set<string>();
const watching = { done: false };
/** One look after another: on a slow host a look may take longer than the time between two. */
async function watch(): Promise<void> {
  while (!watching.done) {
    const { shutdown } = await host.find(name);
    if (shutdown !== null) shutdowns.add(shutdown);
    await sleep(20);
  }
}
const watched = watch();
for (let i = 0; i < Number(times); i++) {
  const result = await checkpoint(host, name, image, { mode: 'light' });
  assert.equal(result.consistency, 'paused');
  pausesMs.push(result.pauseMs);
  elapsedMs.push(result.elapsedMs);
  if (i % verifyEvery === 0) assert.deepEqual((await verifyImage(image)).findings, []);
  rmSync(image);
  if (i + 1 === Math.min(settled, Number(times))) before = await held();
}
watching.done = true;
await watched;
assert.deepEqual([...shutdowns], [], 'it was never shut down');
const end = await held();
const objects = steps().openObjects();
assert.ok(before);
const grown = JSON.stringify({ before, end });
assert.ok(end.files <= before.files, grown);
// Hypercall buffers are of the same device and stay; what grows is a leak.
assert.ok(end.foreignMappings <= before.foreignMappings, grown);
assert.ok(end.rssMib <= before.rssMib + rssSlackMib, grown);
assert.equal(end.xenstoreNodes, before.xenstoreNodes, grown);
assert.ok(end.xenFreeMib >= before.xenFreeMib - xenSlackMib, grown);
assert.ok(
  Object.values(objects).every((n) => n === 0),
  JSON.stringify(objects),
);
const info = await host.find(name);
assert.deepEqual([info.paused, info.shutdown], [false, null]);
pausesMs.sort((a, b) => a - b);
elapsedMs.sort((a, b) => a - b);
process.stdout.write(
  `${JSON.stringify({
    times: pausesMs.length,
    pauseP50Ms: quantile(pausesMs, 0.5),
    pauseP99Ms: quantile(pausesMs, 0.99),
    elapsedP50Ms: quantile(elapsedMs, 0.5),
    before,
    end,
  })}\n`,
);
await host.close();
process.exit(0);

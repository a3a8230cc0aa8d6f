/**
 * Light checkpoints in a row, run in dom0: node live_checks.js DOMAIN TIMES FILE. Prints one line of JSON: pauses, and what
 * the process held before and after (descriptors, native objects). Every image is verified now and then, and removed.
 */
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { openXenHost } from '../../src/host/xen/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { steps } from '../../src/worker/steps.js';

const verifyEvery = 25;

const quantile = (sorted: readonly number[], q: number): number =>
  Number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]?.toFixed(3));

/** Once the pipes of the last lease's watcher are closed. */
async function openFiles(): Promise<number> {
  await sleep(1000);
  return readdirSync('/proc/self/fd').length;
}

const [, , name = '', times = '1', image = ''] = process.argv;
const host = await openXenHost();
const pausesMs: number[] = [];
const elapsedMs: number[] = [];
let filesBefore = 0;
const shutdowns = new Set<string>();
const watch = setInterval(() => {
  void host.find(name).then(({ shutdown }) => {
    if (shutdown !== null) shutdowns.add(shutdown);
  });
}, 20);
for (let i = 0; i < Number(times); i++) {
  const result = await checkpoint(host, name, image, { mode: 'light' });
  assert.equal(result.consistency, 'paused');
  pausesMs.push(result.pauseMs);
  elapsedMs.push(result.elapsedMs);
  if (i % verifyEvery === 0) assert.deepEqual((await verifyImage(image)).findings, []);
  rmSync(image);
  if (i === 0) filesBefore = await openFiles();
}
clearInterval(watch);
assert.deepEqual([...shutdowns], [], 'it was never shut down');
const filesAfter = await openFiles();
const objects = steps().openObjects();
assert.ok(filesAfter <= filesBefore, `${filesBefore} open files became ${filesAfter}`);
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
    rssMib: Math.round(process.memoryUsage().rss / 2 ** 20),
  })}\n`,
);
await host.close();
process.exit(0);

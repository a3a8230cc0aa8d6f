/**
 * A thread that lists the domains of the host `test` every millisecond and looks at the one named in its data, until it
 * is sent a message; then it posts what it saw.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';

export interface Sampled {
  readonly samples: number;
  readonly elapsedMs: number;
  /** Samples with the shutdown bit set. */
  readonly shutdowns: number;
  readonly pauses: number;
  /** Samples in which the guest's counter was lower than before. */
  readonly backwards: number;
  /** Most samples in a row between which the counter did not grow. */
  readonly longestStall: number;
}

const host = await openEmbeddedHost('test');
const name = workerData as string;
const { domid } = await host.find(name);
const asked = new AbortController();
parentPort?.once('message', () => asked.abort());
parentPort?.postMessage('ready');

let [samples, shutdowns, pauses, backwards, longestStall, counter, stall] = [0, 0, 0, 0, 0, 0, 0];
const startedMs = performance.now();
let dueMs = startedMs;
while (!asked.signal.aborted) {
  dueMs += 1;
  const [domains, { counters }] = await Promise.all([host.list(), host.progress(domid)]);
  const info = domains.find((domain) => domain.name === name);
  if (!info) throw new Error(`${name} is not listed`);
  samples += 1;
  if (info.shutdown !== null) shutdowns += 1;
  if (info.paused) pauses += 1;
  const now = counters[0] ?? 0;
  if (now < counter) backwards += 1;
  stall = now > counter ? 0 : stall + 1;
  longestStall = Math.max(longestStall, stall);
  counter = now;
  // A sleep takes longer than it says: what comes late is made up for.
  if (performance.now() < dueMs) await sleep(1);
}
const elapsedMs = performance.now() - startedMs;
await host.close();
const seen: Sampled = { samples, elapsedMs, shutdowns, pauses, backwards, longestStall };
parentPort?.postMessage(seen);

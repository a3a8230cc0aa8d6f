/** A stream that nobody reads ends in bounded time, by its deadline or by an abort, and the guest runs on. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { streamDomain } from '../../src/transfer/send.js';
import { type StreamFormat, StreamWriter } from '../../src/xenstream/frames/writer.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { plainHost } from '../support/plain_host.js';

/** The writing end, which blocks, of a pipe whose reading end is open and never read. */
function unreadPipe(t: TestContext): number {
  const path = join(tempDir(t), 'pipe');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, 'r+');
  t.after(() => closeSync(fd));
  return fd;
}

interface Ending {
  readonly code: string;
  readonly tookMs: number;
}

interface Plan {
  readonly format: StreamFormat;
  readonly live: boolean;
  readonly stallMs: number;
  readonly abortAfterMs?: number;
}

async function endOfStream(t: TestContext, { format, live, stallMs, abortAfterMs }: Plan): Promise<Ending> {
  const host = await startTestHost(t, { memoryMib: 128 });
  t.after(closeWorkers);
  const domid = await bootGuest(host, 'guest', {
    program: 'writer',
    vcpus: 1,
    seed: 5,
    steps: 0,
    rate: 500,
    memoryMib: 16,
  });
  const lease = await host.acquire(domid, 'save');
  const info = await host.find('guest');
  const abort = new AbortController();
  if (abortAfterMs !== undefined) setTimeout(() => abort.abort(), abortAfterMs).unref();
  const startedMs = performance.now();
  let code = 'none';
  await streamDomain({
    ...{
      host: plainHost(host, { tracker: 'log-dirty' }),
      lease,
      info,
      fd: unreadPipe(t),
      format,
      live,
      stallMs,
    },
    suspend: () => host.suspend(lease, 10_000),
    options: { signal: abort.signal },
  }).catch((thrown: unknown) => {
    ({ code } = thrown as { code: string });
  });
  const tookMs = performance.now() - startedMs;
  await lease.release();
  const { cpuTimeNs } = await host.find('guest');
  await sleep(300);
  const after = await host.find('guest');
  assert.equal(after.shutdown, null);
  assert.ok(after.cpuTimeNs > cpuTimeNs, 'the guest runs on');
  assert.equal(steps().openObjects().writers, 0);
  return { code, tookMs };
}

for (const format of ['frames', 'libxc'] as const)
  for (const live of [false, true]) {
    const what = `${format}, ${live ? 'live' : 'standing'}`;
    test(`${what}: nobody reads`, { timeout: 60_000 }, async (t) => {
      const { code, tookMs } = await endOfStream(t, { format, live, stallMs: 700 });
      assert.equal(code, 'IMAGE_WRITE_FAILED');
      assert.ok(tookMs >= 700 && tookMs < 15_000, `${tookMs} ms`);
    });
    test(`${what}: nobody reads, and it is cancelled`, { timeout: 60_000 }, async (t) => {
      const { code, tookMs } = await endOfStream(t, { format, live, stallMs: 3_600_000, abortAfterMs: 1500 });
      assert.equal(code, 'CANCELLED');
      assert.ok(tookMs < 15_000, `${tookMs} ms`);
    });
  }

test('a socket whose peer does not read', { timeout: 60_000 }, async (t) => {
  const path = join(tempDir(t), 'socket');
  const server = createServer((peer) => peer.pause());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const socket = await new Promise<Socket>((resolve) => {
    const made = createConnection(path, () => resolve(made));
  });
  t.after(() => {
    socket.destroy();
    server.close();
  });
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const stream = StreamWriter.create(fd, { format: 'frames', nrPfns: 64, lanes: 1, stallMs: 500 });
  await assert.rejects(stream.write(Buffer.alloc(64 << 20)), {
    code: 'IMAGE_WRITE_FAILED',
    message: /nobody has read the stream for 500 ms/u,
  });
  stream.release();
});

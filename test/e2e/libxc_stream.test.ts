/** The save helper's stream holds what the guest held: read back as an image it has the guest's digest. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { suspendGuest } from '../../src/capture/stand_still.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { writeLibxcStream } from '../../src/helper/stream_save.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { convertFromXen } from '../../src/image/convert/from_xen.js';
import { frameConfig } from '../../src/image/convert/standard_stream.js';
import { libxlHead, paddedRecord, xlHead } from '../../src/image/convert/stream_writer.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest, runToEnd, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';

const config = JSON.stringify({ c_info: { type: 'pv', name: 'guest' }, b_info: { max_vcpus: 2 } });

/** What libxl and xl put around the helper's stream. */
async function saveThroughStream(host: EmbeddedHost, name: string, path: string): Promise<void> {
  const info = await host.find(name);
  const lease = await host.acquire(info.domid, 'save');
  const fd = openSync(path, 'wx');
  try {
    const still = await suspendGuest(host, lease, info, { timeoutMs: 10_000 });
    const xl = { mandatoryFlags: 3, optionalFlags: 0, optionalData: frameConfig(config) };
    for (const bytes of [...xlHead({ xl }), libxlHead({ libxl: { version: 2, options: 0 } })])
      writeSync(fd, bytes);
    for (const bytes of paddedRecord(1, Buffer.alloc(0))) writeSync(fd, bytes);
    const seen: number[] = [];
    await writeLibxcStream(still.source, fd, { onPages: (done) => seen.push(done) });
    assert.equal(seen.at(-1), still.source.geometry.nrPfns);
    for (const bytes of paddedRecord(0, Buffer.alloc(0))) writeSync(fd, bytes);
    await still.release();
  } finally {
    closeSync(fd);
    await lease.release();
  }
}

for (const program of ['writer', 'churner'] as const)
  test(`${program}: stream, image, digest`, { timeout: 60_000 }, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'dormouse-stream-'));
    t.after(async () => {
      await closeWorkers();
      rmSync(dir, { recursive: true, force: true });
    });
    const host = await startTestHost(t, { memoryMib: 128 });
    const plan: GuestPlan = { program, vcpus: 2, seed: 7, steps: 400, rate: 0, memoryMib: 16 };
    await bootGuest(host, 'guest', plan);
    await runToEnd(host, 'guest', plan);
    const before = await digestDomain(host, 'guest');
    await saveThroughStream(host, 'guest', join(dir, 'guest.xl'));
    await convertFromXen(join(dir, 'guest.xl'), join(dir, 'guest.img'));
    const read = await digestImage(join(dir, 'guest.img'));
    assert.equal(read.digest, before.digest);
  });

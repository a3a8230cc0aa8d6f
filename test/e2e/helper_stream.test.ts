/** The save helper's streams hold what the guest held, however busy it was: filled into a new domain it goes on the same. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { restoreFrames, restoreLibxcStream, type HelperTarget } from '../../src/transfer/receive.js';
import { streamDomain } from '../../src/transfer/send.js';
import type { DormouseError } from '../../src/errors.js';
import type { DomainSpec, Host, Lease } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import { frameConfig } from '../../src/xenstream/standard_stream.js';
import { libxlHead, paddedRecord, xlHead } from '../../src/xenstream/stream_writer.js';
import type { StreamFormat } from '../../src/xenstream/frames/writer.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { helperTarget, silentReceiver } from '../support/helper_target.js';
import { plainHost, type TrackerKind } from '../support/plain_host.js';
import { BufferSource, writtenBy } from '../support/stream_bytes.js';

const noObjects = {
  memories: 0,
  writers: 0,
  readers: 0,
  digests: 0,
  trackers: 0,
  livePasses: 0,
  rewinds: 0,
  diffs: 0,
  pageFiles: 0,
};
const xlConfig = JSON.stringify({ c_info: { type: 'pv', name: 'guest' }, b_info: { max_vcpus: 2 } });

async function setUp(t: TestContext): Promise<EmbeddedHost> {
  const host = await startTestHost(t, { memoryMib: 256 });
  t.after(closeWorkers);
  return host;
}

interface Plan {
  readonly format: StreamFormat;
  /** How changed pages are found while the guest runs; null: it stands still from the start. */
  readonly live: TrackerKind | null;
}

/** The host, whose tracker says when it is told that the guest is about to stand still. */
function toldBefore(host: Host, told: () => void): Host {
  return new Proxy<Host>(host, {
    get: (_, name) => {
      if (name !== 'tracker') return Reflect.get(host, name, host) as unknown;
      return async (lease: Lease) => {
        const tracker = await host.tracker(lease);
        const prepare = (): Promise<void> => {
          told();
          return tracker.prepare();
        };
        return { ...tracker, prepare };
      };
    },
  });
}

/** Streams the guest, which is destroyed then, as libxl would. */
function stream(host: EmbeddedHost, name: string, { format, live }: Plan): Promise<Buffer> {
  return writtenBy(async (fd) => {
    const info = await host.find(name);
    const lease = await host.acquire(info.domid, 'save');
    let [done, total] = [0, 1];
    let prepared = live !== 'log-dirty';
    const plain = plainHost(host, { tracker: live ?? 'content' });
    await streamDomain({
      ...{ lease, info, fd, format, live: live !== null },
      host: toldBefore(plain, () => (prepared = true)),
      suspend: () => {
        assert.ok(prepared, 'what takes long was looked up');
        return host.suspend(lease, 10_000);
      },
      options: {
        onProgress: ({ donePages, totalPages }) => {
          [done, total] = [donePages, totalPages];
        },
      },
    });
    assert.equal(done, total);
    await host.destroy(info.domid);
    await lease.release();
  });
}

async function fill(
  host: EmbeddedHost,
  spec: DomainSpec,
  bytes: Buffer,
  format: StreamFormat,
): Promise<void> {
  const { lease, builder } = await host.build(spec);
  const source = new BufferSource(bytes);
  const restoreStream = format === 'frames' ? restoreFrames : restoreLibxcStream;
  await restoreStream({
    ...{
      builder: helperTarget(builder, spec.maxMemoryKib / 4),
      source,
      signal: new AbortController().signal,
    },
    receiver: silentReceiver,
  });
  assert.equal(source.offset, bytes.length, 'all of the stream was read and nothing more');
  await lease.release();
  await host.unpause(builder.domid);
}

/** The host, on which every new domain gets this configuration: xl's file knows nothing of a guest program. */
function withConfig(host: EmbeddedHost, config: string): Host {
  return new Proxy<Host>(host, {
    get: (_, name) => {
      if (name === 'build') return (spec: DomainSpec) => host.build({ ...spec, config });
      const own: unknown = Reflect.get(host, name, host);
      return typeof own === 'function' ? (own.bind(host) as unknown) : own;
    },
  });
}

const plans: readonly Plan[] = (['frames', 'libxc'] as const).flatMap((format) =>
  ([null, 'log-dirty', 'content'] as const).map((live) => ({ format, live })),
);

for (const plan of plans)
  for (const program of ['writer', 'churner'] as const) {
    const { format, live } = plan;
    test(`${program}, ${format}, ${live ?? 'standing'}: goes on the same in a new domain`, async (t) => {
      const host = await setUp(t);
      const guest: GuestPlan = { program, vcpus: 2, seed: 11, steps: 3000, rate: 2000, memoryMib: 16 };
      const untouched = await untouchedDigest(host, guest);
      const domid = await bootGuest(host, 'guest', guest);
      const spec = { ...(await host.find('guest')), name: 'again', config: await host.config(domid) };
      await sleep(40);
      const bytes = await stream(host, 'guest', plan);
      // The churner gives frames back while it is copied, which an embedded builder cannot take back one by one.
      if (program === 'churner' && live !== null) {
        const image = await imageOf(t, bytes, JSON.stringify({ c_info: { type: 'pv', name: 'again' } }));
        await restore(withConfig(host, spec.config), image, { paused: false });
      } else await fill(host, spec, bytes, format);
      assert.equal(await finalDigest(host, 'again', guest), untouched);
      assert.deepEqual(steps().openObjects(), noObjects);
    });
  }

/** An image of the stream, put into the file that xl and libxl make around it. */
async function imageOf(t: TestContext, bytes: Buffer, config: string): Promise<string> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-stream-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const xl = { mandatoryFlags: 3, optionalFlags: 0, optionalData: frameConfig(config) };
  const file = [
    ...xlHead({ xl }),
    libxlHead({ libxl: { version: 2, options: 0 } }),
    ...paddedRecord(1, Buffer.alloc(0)),
    bytes,
    ...paddedRecord(0, Buffer.alloc(0)),
  ];
  writeFileSync(join(dir, 'guest.xl'), Buffer.concat(file));
  await convertFromXen(join(dir, 'guest.xl'), join(dir, 'guest.img'));
  assert.deepEqual((await verifyImage(join(dir, 'guest.img'))).findings, []);
  return join(dir, 'guest.img');
}

for (const format of ['frames', 'libxc'] as const)
  for (const program of ['writer', 'churner'] as const)
    test(`${program}: a file of xl's with our ${format}, an image of it, and their digests`, async (t) => {
      const host = await setUp(t);
      const plan: GuestPlan = { program, vcpus: 2, seed: 7, steps: 400, rate: 0, memoryMib: 16 };
      await bootGuest(host, 'guest', plan);
      await runToEnd(host, 'guest', plan);
      const before = await digestDomain(host, 'guest');
      const image = await imageOf(t, await stream(host, 'guest', { format, live: null }), xlConfig);
      assert.equal((await digestImage(image)).digest, before.digest);
    });

for (const format of ['frames', 'libxc'] as const)
  test(`${format}: more pfns than the domain's memory allows for are not believed`, async (t) => {
    const host = await setUp(t);
    await bootGuest(host, 'guest', { program: 'idle', vcpus: 1, seed: 1, steps: 0, rate: 0, memoryMib: 16 });
    const spec = { ...(await host.find('guest')), name: 'again', config: await host.config(1) };
    const bytes = await stream(host, 'guest', { format, live: null });
    const { lease, builder } = await host.build(spec);
    let most = 0;
    const whole = helperTarget(builder, spec.maxMemoryKib / 4);
    const small: HelperTarget = {
      ...whole,
      mostPfns: 1000,
      setGeometry: (geometry) => {
        most = Math.max(most, geometry.nrPfns);
        return whole.setGeometry(geometry);
      },
    };
    const restoreStream = format === 'frames' ? restoreFrames : restoreLibxcStream;
    const { signal } = new AbortController();
    await assert.rejects(
      restoreStream({ builder: small, source: new BufferSource(bytes), signal, receiver: silentReceiver }),
      (error: DormouseError) => error.code === 'STREAM_INVALID' && /no more than 1000/.test(error.message),
    );
    assert.ok(most <= 1000);
    await lease.release();
    assert.deepEqual(steps().openObjects(), noObjects);
  });

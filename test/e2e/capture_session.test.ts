/** Sessions of many takes: each image is the memory at its instant, whatever became of the one before. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Buffer } from 'node:buffer';
import { CaptureSession } from '../../src/capture/session.js';
import { commitImage } from '../../src/capture/write_image.js';
import { DormouseError } from '../../src/errors.js';
import type { Host } from '../../src/host/contract.js';
import { embeddedConfig } from '../../src/host/embedded/guest_config.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { Operation } from '../../src/domain/operation.js';
import { verifyImage } from '../../src/image/verify.js';
import { ImageWriter } from '../../src/image/writer.js';
import { closeWorkers, encodingLanes } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { plainHost, type PlainHostOptions } from '../support/plain_host.js';
import { assertSame, readOut, readOutRaw, readOutView, type Readout } from '../support/readout.js';
import { withCalls } from '../support/with_calls.js';

interface Setting {
  readonly host: EmbeddedHost;
  readonly dir: string;
  readonly domid: number;
}

async function setUp(t: TestContext): Promise<Setting> {
  const host = await startTestHost(t, { memoryMib: 128 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-session-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  const config = embeddedConfig({ program: 'churner', rate: 1000, seed: 5, fillPercent: 60 });
  const spec = { ...guestSpec('busy', undefined, { memoryMib: 16, vcpus: 2 }), config };
  return { host, dir, domid: await host.create(spec, { paused: false }) };
}

/** A host, and the memory of the guest at its last instant. */
interface Watched {
  readonly host: Host;
  readonly last: () => Readout;
}

function watchedPlain({ host, domid }: Setting, options: PlainHostOptions): Watched {
  let readout: Readout | undefined;
  const plain = plainHost(host, {
    ...options,
    before: (operation) =>
      operation === 'releasePaused'
        ? (options.asXen === 'pvh' ? readOutRaw(host, domid) : readOut(host, domid)).then(
            (read) => void (readout = read),
          )
        : undefined,
  });
  return { host: plain, last: () => readout ?? assert.fail('never paused') };
}

/** Of one that copies on write: each snapshot is read by the test before the engine has it. */
function watchedSnapshots({ host }: Setting): Watched {
  let readout: Readout | undefined;
  const snapshot: Host['snapshot'] = async (lease) => {
    const taken = await host.snapshot(lease, { readOnce: false });
    readout = readOutView(taken.memory, taken.geometry.nrPfns, true);
    return taken;
  };
  const shown = new Proxy<Host>(host, {
    get: (target, name) => {
      const own: unknown = name === 'snapshot' ? snapshot : Reflect.get(target, name, target);
      return typeof own === 'function' ? (own.bind(target) as unknown) : own;
    },
  });
  return { host: shown, last: () => readout ?? assert.fail('never frozen') };
}

const kinds: Readonly<Record<string, (setting: Setting) => Watched>> = {
  'log-dirty': (setting) => watchedPlain(setting, { tracker: 'log-dirty' }),
  content: (setting) => watchedPlain(setting, { tracker: 'content' }),
  'PV as on Xen': (setting) => watchedPlain(setting, { tracker: 'log-dirty', asXen: 'pv' }),
  'PVH as on Xen': (setting) => watchedPlain(setting, { tracker: 'log-dirty', asXen: 'pvh' }),
  'copy on write': watchedSnapshots,
};

for (const [kind, watched] of Object.entries(kinds))
  test(`increments, every other one aborted, add up to the memory at the last: ${kind}`, async (t) => {
    const setting = await setUp(t);
    const { host, last } = watched(setting);
    const session = await CaptureSession.open(host, 'busy', 'checkpoint');
    const { nrPfns } = session.geometry;
    const consistency = session.copiesOnWrite ? 'suspend-point' : 'paused';
    const create = (name: string): Promise<ImageWriter> =>
      ImageWriter.create(join(setting.dir, name), { nrPfns, lanes: encodingLanes, consistency });
    const writer = await create('image');
    const operation = new Operation();
    let taken = await session.take(writer, { mode: 'light', whole: true });
    session.commitEpoch();
    const wholeBytes = writer.storedBytes();
    for (let i = 0; i < 3; i++) {
      await sleep(30);
      const dropped = await create(`dropped-${i}`);
      await session.take(dropped, { mode: 'light', whole: false });
      session.abortEpoch();
      await dropped.abandon();
      await sleep(10);
      taken = await session.take(writer, { mode: 'light', whole: false });
      session.commitEpoch();
    }
    const added = writer.storedBytes() - wholeBytes;
    assert.ok(added < wholeBytes, `${added} bytes were added to ${wholeBytes}`);
    await session.end();
    const { path } = await commitImage(writer, taken.source, {
      pauseMs: taken.pauseMs,
      operation,
      signal: undefined,
    });
    await assertSame(path, last(), { mayHoldMore: kind.startsWith('PVH') });
    if (!kind.startsWith('PVH')) assert.deepEqual((await verifyImage(path)).findings, []);
    const { trackers, leases, snapshots } = await setting.host.status();
    assert.deepEqual([trackers, leases.length, snapshots], [0, 0, 0]);
    const open = Object.entries(steps().openObjects()).filter(([, count]) => count > 0);
    assert.deepEqual(open, []);
  });

test('a domain that goes is unmapped at once, and no more is taken of it', async (t) => {
  const setting = await setUp(t);
  const { host } = watchedPlain(setting, { tracker: 'log-dirty' });
  const session = await CaptureSession.open(host, 'busy', 'checkpoint');
  const { nrPfns } = session.geometry;
  const image = join(setting.dir, 'image');
  const writer = await ImageWriter.create(image, { nrPfns, lanes: encodingLanes, consistency: 'paused' });
  await session.take(writer, { mode: 'light', whole: true });
  session.commitEpoch();
  assert.equal(steps().openObjects().memories, 1);
  await setting.host.destroy(setting.domid);
  await until('it is unmapped', 5000, () => steps().openObjects().memories === 0);
  await assert.rejects(session.take(writer, { mode: 'light', whole: false }), { code: 'DOMAIN_NOT_FOUND' });
  await writer.abandon();
  await session.end();
});

test('a log that was cleared and not read: the next take is of all of it', async (t) => {
  const setting = await setUp(t);
  const { host, last } = watchedPlain(setting, { tracker: 'log-dirty' });
  let fails = false;
  const lossy = withCalls(host, {
    tracker: async (lease) => {
      const tracker = await host.tracker(lease);
      const readAndClear = async (): Promise<Buffer> => {
        const bitmap = await tracker.readAndClear();
        if (!fails) return bitmap;
        fails = false;
        throw new DormouseError('LOCKED', 'another tool took pages');
      };
      return { ...tracker, readAndClear };
    },
  });
  const session = await CaptureSession.open(lossy, 'busy', 'checkpoint');
  const { nrPfns } = session.geometry;
  const create = (name: string): Promise<ImageWriter> =>
    ImageWriter.create(join(setting.dir, name), { nrPfns, lanes: encodingLanes, consistency: 'paused' });
  const [writer, dropped] = [await create('image'), await create('dropped')];
  const operation = new Operation();
  await session.take(writer, { mode: 'light', whole: true });
  session.commitEpoch();
  await sleep(100);
  fails = true;
  await assert.rejects(session.take(dropped, { mode: 'light', whole: false }), { code: 'LOCKED' });
  await dropped.abandon();
  const taken = await session.take(writer, { mode: 'light', whole: false });
  session.commitEpoch();
  await session.end();
  const { path } = await commitImage(writer, taken.source, {
    pauseMs: taken.pauseMs,
    operation,
    signal: undefined,
  });
  await assertSame(path, last(), { mayHoldMore: false });
});

test('a snapshot that began the log anew and was lost: the next take is of all of it', async (t) => {
  const setting = await setUp(t);
  let fails = false;
  const lossy = withCalls(setting.host, {
    snapshot: async (...args) => {
      const snapshot = await setting.host.snapshot(...args);
      if (!fails) return snapshot;
      fails = false;
      snapshot.memory.close();
      await snapshot.release();
      throw new DormouseError('NO_MEMORY', 'no room');
    },
  });
  const session = await CaptureSession.open(lossy, 'busy', 'checkpoint');
  const { nrPfns } = session.geometry;
  const path = join(setting.dir, 'image');
  const writer = await ImageWriter.create(path, {
    nrPfns,
    lanes: encodingLanes,
    consistency: 'suspend-point',
  });
  let takenPages = 0;
  const onProgress = ({ totalPages }: { totalPages: number }): void => {
    takenPages = Math.max(takenPages, totalPages);
  };
  const how = { mode: 'light', whole: false, onProgress } as const;
  const next = async (): Promise<number> => {
    takenPages = 0;
    await sleep(50);
    await session.take(writer, how);
    session.commitEpoch();
    return takenPages;
  };
  assert.equal(await next(), nrPfns);
  assert.ok((await next()) < nrPfns);
  fails = true;
  await assert.rejects(session.take(writer, how), { code: 'NO_MEMORY' });
  assert.equal(await next(), nrPfns);
  await writer.abandon();
  await session.end();
});

for (const copiesOnWrite of [false, true])
  test(`a cooperative take that fails while the guest stands lets it go (${copiesOnWrite ? 'copy on write' : 'live'})`, async (t) => {
    const setting = await setUp(t);
    const host = copiesOnWrite ? setting.host : watchedPlain(setting, { tracker: 'log-dirty' }).host;
    const fail = (): Promise<never> => Promise.reject(new DormouseError('NO_MEMORY', 'no room'));
    const failing = withCalls(host, { readState: fail, snapshot: fail });
    const session = await CaptureSession.open(failing, 'busy', 'checkpoint');
    const writer = await ImageWriter.create(join(setting.dir, 'image'), {
      nrPfns: session.geometry.nrPfns,
      lanes: encodingLanes,
      consistency: 'suspend-point',
    });
    await assert.rejects(session.take(writer, { mode: 'cooperative', whole: true }), { code: 'NO_MEMORY' });
    await writer.abandon();
    assert.equal((await setting.host.info(setting.domid)).shutdown, null);
    await session.end();
  });

/** A session over one that fails where it is told, and the writer of an image of all of it. */
async function failing(
  setting: Setting,
  change: (host: Host) => Host,
): Promise<{ session: CaptureSession; create: (name: string) => Promise<ImageWriter> }> {
  const plain = plainHost(setting.host, { tracker: 'log-dirty' });
  const session = await CaptureSession.open(change(plain), 'busy', 'checkpoint');
  const { nrPfns } = session.geometry;
  const how = { nrPfns, lanes: encodingLanes, consistency: 'paused' } as const;
  return { session, create: (name) => ImageWriter.create(join(setting.dir, name), how) };
}

test('a log that could not be read in the pause: the next take is of all of it', async (t) => {
  const setting = await setUp(t);
  let [asked, fails] = ['', false];
  const { session, create } = await failing(setting, (host) =>
    withCalls(host, {
      tracker: async (lease) => {
        const tracker = await host.tracker(lease);
        const prepare = (): Promise<void> => {
          asked += 'p';
          return tracker.prepare();
        };
        const peek = (): Promise<Buffer> => {
          asked += 'k';
          if (!fails) return tracker.peek();
          fails = false;
          throw new DormouseError('LOCKED', 'another tool took pages');
        };
        return { ...tracker, prepare, peek };
      },
    }),
  );
  const [first, dropped, again] = [await create('first'), await create('dropped'), await create('again')];
  await session.take(first, { mode: 'light', whole: true });
  session.commitEpoch();
  await first.abandon();
  fails = true;
  await assert.rejects(session.take(dropped, { mode: 'light', whole: false }), { code: 'LOCKED' });
  await dropped.abandon();
  assert.equal((await setting.host.info(setting.domid)).paused, false);
  const taken = await session.take(again, { mode: 'light', whole: false });
  session.commitEpoch();
  await session.end();
  // A page that is in no image would not let it be.
  const done = { pauseMs: taken.pauseMs, operation: new Operation(), signal: undefined };
  await commitImage(again, taken.source, done);
  assert.match(asked, /^(pk){3,}$/);
});

test('a light take that fails while the guest stands lets it go', async (t) => {
  const setting = await setUp(t);
  const { session, create } = await failing(setting, () =>
    plainHost(setting.host, {
      tracker: 'log-dirty',
      before: (operation) => {
        if (operation === 'readState') throw new DormouseError('NO_MEMORY', 'no room');
      },
    }),
  );
  const writer = await create('image');
  await assert.rejects(session.take(writer, { mode: 'light', whole: true }), { code: 'NO_MEMORY' });
  await writer.abandon();
  assert.equal((await setting.host.info(setting.domid)).paused, false);
  await session.end();
});

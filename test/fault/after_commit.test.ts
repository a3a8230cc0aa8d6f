/** What fails once an image has its name: it is whole, no error says otherwise, and the guest does not run on beside it. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { DormouseError } from '../../src/errors.js';
import type { Host, Lease } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { save, type SaveOptions } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { startTool } from '../support/tools.js';
import { withCalls } from '../support/with_calls.js';

const broken = (): Promise<never> => Promise.reject(new DormouseError('INTERNAL', 'it is broken'));

/** Leases of it can be ended by the end of the connection only. */
const stuck = (
  host: Host,
): Pick<Host, 'acquire' | 'suspend' | 'resumeInPlace' | 'noteEnding' | 'snapshot'> => {
  let held: Lease | undefined;
  const own = (): Lease => {
    assert.ok(held);
    return held;
  };
  return {
    acquire: async (domid, operation) => {
      held = await host.acquire(domid, operation);
      return { domid, release: broken };
    },
    suspend: (_, timeoutMs) => host.suspend(own(), timeoutMs),
    resumeInPlace: () => host.resumeInPlace(own()),
    noteEnding: (_, ending) => host.noteEnding(own(), ending),
    snapshot: (_, options) => host.snapshot(own(), options),
  };
};

async function scene(t: TestContext): Promise<{ host: EmbeddedHost; image: string; domid: number }> {
  const host = await startTestHost(t);
  t.after(closeWorkers);
  const domid = await host.create(guestSpec('web1'), { paused: false });
  return { host, domid, image: join(tempDir(t), 'web1.dmi') };
}

async function assertWhole(image: string): Promise<void> {
  assert.deepEqual((await verifyImage(image)).findings, []);
}

/** What a call fails with. */
async function failure(of: Promise<unknown>): Promise<DormouseError> {
  const error = await of.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof DormouseError, 'it fails');
  return error;
}

async function stateOf(host: Host): Promise<string> {
  const info = (await host.list()).find(({ name }) => name === 'web1');
  return !info ? 'gone' : (info.shutdown ?? (info.paused ? 'paused' : 'running'));
}

const endings = [
  ['destroy', 'gone'],
  ['pause', 'paused'],
] as const;

for (const [then, state] of endings) {
  test(`${then} fails once: the lease's end does it`, async (t) => {
    const { host, image } = await scene(t);
    await save(withCalls(host, { [then]: broken }), 'web1', image, { then });
    assert.equal(await stateOf(host), state);
    await assertWhole(image);
  });

  test(`${then} fails for good: the image is kept, and the error says so and how the guest is`, async (t) => {
    const { host, image } = await scene(t);
    const failing = withCalls(host, { ...stuck(host), [then]: broken });
    const error = await failure(save(failing, 'web1', image, { then }));
    assert.deepEqual([error.code, error.exitCode, error.guest], ['NOT_SETTLED', 21, 'suspended']);
    assert.match(error.message, /web1\.dmi is whole and kept, but web1 could not be .*: it is broken$/);
    assert.equal(error.place.path, image);
    await assertWhole(image);
  });

  test(`killed between the image and its ${then}: the host does it`, async (t) => {
    const { host, image } = await scene(t);
    const tool = await startTool(t, ['save', then, 'web1', image]);
    assert.equal(await stateOf(host), 'suspend');
    await tool.kill();
    await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
    assert.equal(await stateOf(host), state);
    await assertWhole(image);
    if (then === 'destroy') await restore(host, image, { paused: false });
    else await host.unpause((await host.find('web1')).domid);
    assert.equal(await stateOf(host), 'running');
  });

  test(`killed before ${then}, and the image is gone or another by then: the guest goes on`, async (t) => {
    const { host, image } = await scene(t);
    for (const spoil of [() => rmSync(image), () => writeFileSync(image, Buffer.alloc(4096))]) {
      const tool = await startTool(t, ['save', then, 'web1', image]);
      spoil();
      await tool.kill();
      await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
      assert.equal(await stateOf(host), 'running');
      rmSync(image, { force: true });
    }
  });
}

test('nothing that fails after a save that goes on, or a checkpoint, is told as its failure', async (t) => {
  const { host, image } = await scene(t);
  const options: SaveOptions = { then: 'resume' };
  const takes = [
    (on: Host) => save(on, 'web1', image, options),
    (on: Host) => checkpoint(on, 'web1', image, { mode: 'light' }),
    (on: Host) => checkpoint(on, 'web1', image, { mode: 'cooperative' }),
  ];
  for (const take of takes) {
    const error = await failure(take(withCalls(host, stuckAfter(host))));
    assert.deepEqual([error.code, error.exitCode, error.guest], ['NOT_SETTLED', 21, 'running']);
    await assertWhole(image);
    rmSync(image);
  }
});

/** The lease is ended, and says that it was not. */
function stuckAfter(host: Host): Pick<Host, 'acquire'> {
  return {
    acquire: async (domid, operation) => {
      const lease = await host.acquire(domid, operation);
      const release = async (): Promise<never> => {
        await lease.release.call(lease);
        return broken();
      };
      return new Proxy(lease, {
        get: (of, key) => (key === 'release' ? release : (Reflect.get(of, key, of) as unknown)),
      });
    },
  };
}

test('what is only counted has its place before the image: if it fails there is none', async (t) => {
  const { host, image } = await scene(t);
  const snapshot: Host['snapshot'] = async (lease, options) => ({
    ...(await host.snapshot(lease, options)),
    cowPages: broken,
  });
  const error = await failure(checkpoint(withCalls(host, { snapshot }), 'web1', image, { mode: 'light' }));
  assert.equal(error.code, 'INTERNAL');
  assert.deepEqual([existsSync(image), await stateOf(host)], [false, 'running']);
});

test('a failed save whose guest cannot be given back says how the guest is', async (t) => {
  const { host, image } = await scene(t);
  const noState = (): Promise<never> => Promise.reject(new DormouseError('NO_MEMORY', 'no state'));
  const failing = withCalls(host, { ...stuck(host), readState: noState });
  const error = await failure(save(failing, 'web1', image, { then: 'destroy' }));
  assert.deepEqual([error.code, error.exitCode, error.guest], ['NO_MEMORY', 20, 'suspended']);
  assert.match(error.message, /^no state; and not all could be undone: it is broken$/);
  assert.deepEqual(readdirSync(join(image, '..')), []);
});

for (const then of ['destroy', 'pause'] as const)
  test(`a lease whose end fails once the guest is as asked is no failure of the save (${then})`, async (t) => {
    const { host, image } = await scene(t);
    const { path } = await save(withCalls(host, stuckAfter(host)), 'web1', image, { then });
    assert.equal(path, image);
    await assertWhole(image);
    assert.equal(await stateOf(host), then === 'destroy' ? 'gone' : 'paused');
  });

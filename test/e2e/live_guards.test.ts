/** What a light checkpoint looks at again once the guest runs: it changed under the pause, so the pause was in vain. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint, type CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import type { MemoryGeometry } from '../../src/domain/state.js';
import type { Host } from '../../src/host/contract.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { guestSpec, startTestHost } from '../support/hosts.js';
import { plainHost } from '../support/plain_host.js';

/** A light checkpoint of a host of which some answers are others from the nth pause's end on. */
async function lightWith(
  t: TestContext,
  change: (host: Host, pausesEnded: () => number) => Partial<Host>,
): Promise<{ run: () => Promise<CheckpointResult>; pauses: () => number; image: string }> {
  const host = await startTestHost(t, { memoryMib: 64 });
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-guards-'));
  t.after(async () => {
    await closeWorkers();
    rmSync(dir, { recursive: true, force: true });
  });
  await host.create(guestSpec('guest'), { paused: false });
  let pauses = 0;
  const plain = plainHost(host, {
    tracker: 'log-dirty',
    before: (operation) => {
      if (operation === 'releasePaused') pauses++;
    },
  });
  const changed = change(plain, () => pauses);
  const shown = new Proxy<Host>(plain, {
    get: (target, name) => Reflect.get(name in changed ? changed : target, name) as unknown,
  });
  const image = join(dir, 'image');
  return { run: () => checkpoint(shown, 'guest', image, { mode: 'light' }), pauses: () => pauses, image };
}

const geometryThat =
  (differs: (real: MemoryGeometry, pausesEnded: number) => MemoryGeometry) =>
  (host: Host, pausesEnded: () => number): Partial<Host> => ({
    geometry: async (domid) => differs(await host.geometry(domid), pausesEnded()),
  });

test('the p2m moved in the pause: another one is made', async (t) => {
  const moved = (real: MemoryGeometry): MemoryGeometry => ({
    ...real,
    p2mFrames: real.p2mFrames.map((pfn) => pfn + 1),
  });
  const { run, pauses } = await lightWith(
    t,
    geometryThat((real, ended) => (ended === 0 ? real : moved(real))),
  );
  await run();
  assert.equal(pauses(), 2);
});

for (const [when, pausesBefore] of [
  ['before', 0],
  ['in', 1],
] as const)
  test(`the pfn space grew ${when} the pause: no image`, async (t) => {
    let asked = 0;
    const { run, pauses, image } = await lightWith(
      t,
      geometryThat((real, ended) =>
        // The first question is what the writer is made for.
        asked++ > 0 && ended >= pausesBefore ? { ...real, nrPfns: real.nrPfns + 1024 } : real,
      ),
    );
    await assert.rejects(run(), { code: 'GUEST_MEMORY_UNREADABLE', message: /pfn space of guest grew/ });
    assert.equal(pauses(), pausesBefore);
    assert.equal(existsSync(image), false);
  });

test('the guest shut down in the pause: no image', async (t) => {
  const { run, image } = await lightWith(t, (host, ended) => ({
    info: async (domid) => {
      const info = await host.info(domid);
      return ended() > 0 ? { ...info, shutdown: 'crash' as const } : info;
    },
  }));
  await assert.rejects(run(), { code: 'DOMAIN_WRONG_STATE', message: /has shut down \(crash\)/ });
  assert.equal(existsSync(image), false);
});

/**
 * A domain rolled back in place: right after it, its memory, page types and registers are the image's, and from there it runs on
 * as the untouched run went on. Only pages that differ are put back.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { rollback, type RollbackResult } from '../../src/rollback/rollback.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

interface Stage {
  readonly host: EmbeddedHost;
  readonly image: string;
  readonly dir: string;
}

async function setUp(t: TestContext): Promise<Stage> {
  const host = await startTestHost(t, { memoryMib: 512 });
  const dir = tempDir(t);
  t.after(closeWorkers);
  return { host, dir, image: join(dir, 'point.dormouse') };
}

function plan(program: GuestPlan['program'], vcpus: number, over: Partial<GuestPlan> = {}): GuestPlan {
  return { program, vcpus, seed: 3000 + vcpus, steps: 1500, rate: 3000, memoryMib: 16, ...over };
}

/** Nothing is left open in this process, and no lease, snapshot or tracker at the host. */
async function assertLetGo(host: EmbeddedHost): Promise<void> {
  const { leases, snapshots, trackers, quarantinedBytes } = await host.status();
  assert.deepEqual([leases, snapshots, trackers, quarantinedBytes], [[], 0, 0, 0]);
  const { memories, readers, rewinds, livePasses } = steps().openObjects();
  assert.deepEqual([memories, readers, rewinds, livePasses], [0, 0, 0, 0]);
}

/** Rolls a domain back that its user has paused, holds it against the image, and lets it go. */
async function rollBackPaused({ host, image }: Stage, domid: number): Promise<RollbackResult> {
  await host.pause(domid);
  const result = await rollback(host, 'guest', image);
  assert.equal(result.paused, true);
  assert.equal((await digestDomain(host, 'guest')).digest, (await digestImage(image)).digest);
  await host.unpause(domid);
  return result;
}

for (const vcpus of [1, 2, 3, 4])
  for (const program of ['idle', 'counter', 'writer', 'churner', 'crasher'] as const)
    test(`${program} on ${vcpus} vCPUs: rolled back running, paused and after its end, it ends the same`, async (t) => {
      const stage = await setUp(t);
      const { host, image } = stage;
      const guest = plan(program, vcpus);
      const untouched = await untouchedDigest(host, guest);
      const domid = await bootGuest(host, 'guest', guest);
      await sleep(20);
      await checkpoint(host, 'guest', image, { mode: 'light' });
      await sleep(60);
      const running = await rollback(host, 'guest', image);
      assert.deepEqual([running.domid, running.paused, running.safety], [domid, false, null]);
      await sleep(40);
      await rollBackPaused(stage, domid);
      await runToEnd(host, 'guest', guest);
      assert.equal((await digestDomain(host, 'guest')).digest, untouched, 'from a running domain');
      const ended = await rollback(host, 'guest', image);
      const [info] = await host.list();
      assert.deepEqual([info?.domid, info?.building, info?.shutdown], [domid, false, null]);
      assert.ok(ended.putPages > 0 && ended.putPages < ended.samePages, `${ended.putPages} put`);
      assert.equal(await finalDigest(host, 'guest', guest), untouched, 'from one that had ended');
      await assertLetGo(host);
    });

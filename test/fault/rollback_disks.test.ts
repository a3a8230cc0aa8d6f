/**
 * A rollback of a domain with disks whose tool dies at every call it makes of its host, before and after. Either the domain is as it
 * was, its disks at work, or it is half rewound with its disks away; the next rollback makes memory and disks whole.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { rollback } from '../../src/rollback/rollback.js';
import { closeWorkers } from '../../src/worker/pool.js';
import {
  bootWithDisks,
  copyDisks,
  endOf,
  putDisks,
  reachStep,
  rewritingHost,
  untouchedEnd,
} from '../support/disks.js';
import { startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { steppingHost } from '../support/stepping_host.js';

const plan = { seed: 21, vcpus: 2, steps: 700, rate: 8000, disks: [200] } as const;
const pointStep = 200;

interface Stage {
  readonly host: EmbeddedHost;
  readonly domid: number;
  readonly image: string;
  readonly disks: readonly string[];
  readonly kept: readonly string[];
}

async function setUp(t: TestContext): Promise<Stage & { readonly untouched: string }> {
  const host = await startTestHost(t, { memoryMib: 128 });
  t.after(closeWorkers);
  const dir = tempDir(t);
  const untouched = await untouchedEnd(host, dir, plan);
  const { domid, disks } = await bootWithDisks(host, 'guest', dir, plan);
  await host.setBackend(domid, 0, { delayUs: 1000, seed: 5 });
  await reachStep(host, domid, pointStep);
  await host.pause(domid);
  const image = join(dir, 'point.dormouse');
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const kept = copyDisks(dir, disks);
  await host.unpause(domid);
  return { host, domid, image, disks, kept, untouched };
}

/** What the tool called at that call, or null where the rollback was over before. */
async function dieAt(
  { host, image }: Stage,
  number: number,
  when: 'before' | 'after',
): Promise<string | null> {
  const real = await openEmbeddedHost('test');
  let died: string | null = null;
  const dying = steppingHost(real, async (call, at, name) => {
    if (call !== number || at !== when) return;
    died = name;
    await real.close();
    throw new Error('dead');
  });
  await rollback(dying.host, 'guest', image, { keepDisks: true }).catch((thrown: unknown) => {
    if (died === null) throw thrown;
  });
  await real.close();
  await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
  return died;
}

const endsOf = async ({ host, domid }: Stage): Promise<(string | null)[]> =>
  Promise.all(
    [`/local/domain/${domid}/device`, `/local/domain/0/backend`].map((home, backend) =>
      host.xenstore.read(`${home}/vbd/${backend ? `${domid}/` : ''}51712/state`),
    ),
  );

test('whenever the tool dies, the disks are at work or away, and the next rollback makes all whole', async (t) => {
  const stage = await setUp(t);
  const { host, domid, image, disks, kept } = stage;
  const ways = { before: 0, half: 0 };
  for (const when of ['before', 'after'] as const)
    for (let number = 0; ; number++) {
      await reachStep(host, domid, pointStep + 20);
      await host.pause(domid);
      const died = await dieAt(stage, number, when);
      const rewinding = (await host.info(domid)).rewinding === true;
      ways[rewinding ? 'half' : 'before']++;
      const at = `${when} call ${number} (${died ?? 'none'})`;
      assert.deepEqual(await endsOf(stage), ['4', rewinding ? '6' : '4'], at);
      await rollback(
        rewritingHost(host, () => putDisks(disks, kept)),
        'guest',
        image,
        { keepDisks: true },
      );
      await host.unpause(domid);
      assert.deepEqual(await endsOf(stage), ['4', '4'], at);
      if (died === null) break;
    }
  assert.ok(ways.before > 4 && ways.half > 4, JSON.stringify(ways));
  assert.equal(await endOf(host, 'guest', disks, plan), stage.untouched);
});

/**
 * A rollback that is cut short at every call it makes of its host, before and after: the host refuses, somebody cancels, the tool
 * dies. Either nothing has happened to the domain, or it stays paused and says so until the next rollback makes it whole.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/addon.js';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain } from '../../src/digest/digest.js';
import { stateReason, stateWord } from '../../src/domain/states.js';
import { DormouseError } from '../../src/errors.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { rollback } from '../../src/rollback/rollback.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps as nativeSteps } from '../../src/worker/steps.js';
import { bootGuest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { type AtStep, steppingHost } from '../support/stepping_host.js';

type When = 'before' | 'after';
type Program = 'writer' | 'churner';

const child = join(packageRoot, 'dist/test/support/rollback_child.js');

class Stage {
  private constructor(
    readonly host: EmbeddedHost,
    readonly image: string,
    readonly guest: GuestPlan,
    readonly domid: number,
    readonly untouched: string,
  ) {}

  static async set(t: TestContext, program: Program): Promise<Stage> {
    const host = await startTestHost(t, { memoryMib: 256 });
    t.after(closeWorkers);
    const guest = { program, vcpus: 2, seed: 41, steps: 500, rate: 3000, memoryMib: 8 };
    const untouched = await untouchedDigest(host, guest);
    const domid = await bootGuest(host, 'guest', guest);
    await sleep(20);
    const image = join(tempDir(t), 'point.dormouse');
    await checkpoint(host, 'guest', image, { mode: 'light' });
    return new Stage(host, image, guest, domid, untouched);
  }

  /** From the point again, as one that has run on for a while. */
  async again(): Promise<void> {
    await rollback(this.host, 'guest', this.image);
    await sleep(15);
  }

  /** How many calls a rollback makes that nobody cuts short. */
  async calls(): Promise<string[]> {
    const { host, steps } = steppingHost(this.host, () => undefined);
    await rollback(host, 'guest', this.image);
    return steps.names;
  }

  /** The domain is whole, or half rewound and says so; then the next rollback mends it. Whether it was half. */
  async assertNeverHalf(what: string): Promise<boolean> {
    const { host, domid, guest } = this;
    await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
    const info = await host.find('guest');
    const half = info.rewinding === true;
    if (half) {
      assert.deepEqual([stateWord(info), stateReason(info)], ['paused', 'rewinding'], what);
      await assert.rejects(host.unpause(domid), { code: 'DOMAIN_WRONG_STATE' });
      await assert.rejects(checkpoint(host, 'guest', `${this.image}.2`, { mode: 'light' }), {
        code: 'DOMAIN_WRONG_STATE',
        guest: 'paused',
      });
      const { paused } = await rollback(host, 'guest', this.image);
      assert.equal(paused, false, 'it ran before');
    } else assert.equal(info.paused, false, `${what}: it runs on`);
    await runToEnd(host, 'guest', guest);
    assert.equal((await digestDomain(host, 'guest')).digest, this.untouched, what);
    const { trackers, snapshots } = await host.status();
    assert.deepEqual([trackers, snapshots], [0, 0]);
    return half;
  }
}

function assertNothingOpen(): void {
  const { memories, readers, rewinds } = nativeSteps().openObjects();
  assert.deepEqual([memories, readers, rewinds], [0, 0, 0]);
}

/** Cuts rollbacks short at each call; how often the domain was half rewound. */
async function cutEverywhere(
  stage: Stage,
  cut: (number: number, when: When, name: string) => Promise<void>,
): Promise<number> {
  const names = await stage.calls();
  assert.ok(names.includes('complete') && names.includes('rewrite'), names.join(' '));
  let half = 0;
  for (const [number, name] of names.entries())
    for (const when of ['before', 'after'] as const) {
      const what = `${when} call ${number}, ${name}`;
      await stage.again();
      try {
        await cut(number, when, name);
      } catch (cause) {
        throw new Error(what, { cause });
      }
      if (await stage.assertNeverHalf(what)) half++;
    }
  return half;
}

/** A call that gave something which is lost with its answer: no tool could give that back. */
const gives = (name: string, when: When): boolean =>
  when === 'after' && ['acquire', 'openToRewrite'].includes(name);

const failing =
  (number: number, when: When): AtStep =>
  (call, at) => {
    if (call === number && at === when) throw new DormouseError('HOST_LACKS', 'injected');
  };

for (const program of ['writer', 'churner'] as const) {
  test(`${program}: whatever call of the host fails, no half of it runs`, async (t) => {
    const stage = await Stage.set(t, program);
    const half = await cutEverywhere(stage, async (number, when, name) => {
      if (gives(name, when)) return;
      const { host } = steppingHost(stage.host, failing(number, when));
      await rollback(host, 'guest', stage.image).then(
        () => undefined,
        (thrown: unknown) => {
          assert.ok(thrown instanceof DormouseError && thrown.code === 'HOST_LACKS', String(thrown));
          const { message, guest, advice } = thrown;
          if (guest === 'paused')
            assert.match(`${message} ${advice}`, /half rewound.*dormouse rollback guest/);
        },
      );
      assertNothingOpen();
    });
    t.diagnostic(`half rewound ${half} times`);
    assert.ok(half >= 4, `only ${half} times half rewound`);
  });

  test(`${program}: cancelled at any call it is as it was, or all of the way back`, async (t) => {
    const stage = await Stage.set(t, program);
    const seen = { cancelled: 0, finished: 0 };
    const half = await cutEverywhere(stage, async (number, when) => {
      const cancel = new AbortController();
      const begun = new Set<string>();
      const { host } = steppingHost(stage.host, (call, at, name) => {
        if (call === number && at === when) cancel.abort();
        if (!cancel.signal.aborted) begun.add(name);
      });
      const ended = await rollback(host, 'guest', stage.image, { signal: cancel.signal }).then(
        () => 'finished' as const,
        (thrown: unknown) => {
          assert.ok(thrown instanceof DormouseError && thrown.code === 'CANCELLED', String(thrown));
          assert.equal(thrown.guest, 'untouched');
          return 'cancelled' as const;
        },
      );
      if (begun.has('rewrite')) assert.equal(ended, 'finished');
      seen[ended]++;
    });
    assert.equal(half, 0);
    assert.ok(seen.cancelled >= 8 && seen.finished >= 8, JSON.stringify(seen));
  });

  test(`${program}: killed at any call, its guest runs on or waits for the next rollback`, async (t) => {
    const stage = await Stage.set(t, program);
    const half = await cutEverywhere(stage, (number, when, name) => {
      const args = [child, 'test', 'guest', stage.image, String(number), when];
      const ran = spawnSync(process.execPath, args, { encoding: 'utf8' });
      assert.equal(ran.signal ?? ran.status, 'SIGKILL', ran.stderr);
      assert.equal(ran.stdout.trim(), name);
      return Promise.resolve();
    });
    assert.ok(half >= 3, `only ${half} times half rewound`);
  });
}

test('a half rewound domain is destroyed as any other', async (t) => {
  const stage = await Stage.set(t, 'writer');
  const names = await stage.calls();
  const { host } = steppingHost(stage.host, failing(names.indexOf('complete'), 'before'));
  await assert.rejects(rollback(host, 'guest', stage.image), { guest: 'paused' });
  await stage.host.destroy(stage.domid);
  assert.deepEqual(await stage.host.list(), []);
  assertNothingOpen();
});

test('one that its user had paused is paused still when the next rollback has made it whole', async (t) => {
  const stage = await Stage.set(t, 'writer');
  const names = await stage.calls();
  await stage.host.pause(stage.domid);
  const { host } = steppingHost(stage.host, failing(names.indexOf('complete'), 'before'));
  await assert.rejects(rollback(host, 'guest', stage.image), { guest: 'paused' });
  const { paused } = await rollback(stage.host, 'guest', stage.image);
  assert.equal(paused, true);
  await stage.host.unpause(stage.domid);
  await runToEnd(stage.host, 'guest', stage.guest);
  assert.equal((await digestDomain(stage.host, 'guest')).digest, stage.untouched);
});

/** A bisect of which each call that it makes of its host fails once: the domain is back where it was, and nothing is left behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bisect } from '../../src/bisect/bisect.js';
import { digestDomain } from '../../src/digest/digest.js';
import { asDormouseError, DormouseError } from '../../src/errors.js';
import { steps as nativeSteps } from '../../src/worker/steps.js';
import { type BisectStage, bisectStage, doingAt, runState, takePoints } from '../support/bisect_stage.js';
import { finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { type AtStep, steppingHost } from '../support/stepping_host.js';

const plan: GuestPlan = { program: 'churner', vcpus: 1, seed: 81, steps: 3000, rate: 1500, memoryMib: 4 };

const failing =
  (number: number, when: 'before' | 'after'): AtStep =>
  (call, at) => {
    if (call === number && at === when) throw new DormouseError('NO_MEMORY', 'injected');
  };

/** What these give is lost with their answer: no tool could give it back. */
const gives = ['acquire', 'openMemory', 'openToRewrite', 'snapshot'];

/** The calls that it makes, if it comes so far. */
async function run(stage: BisectStage, ids: readonly string[], at: AtStep): Promise<string[]> {
  const { host, steps } = steppingHost(stage.host, at);
  const [good = '', , bad = ''] = ids;
  const command = doingAt([ids.slice(1), 'exit 1']);
  const usual = { safety: true, leave: 'before', paused: false, trustEnds: true } as const;
  const result = await bisect(host, 'guest', stage.dir, { good, bad, command, ...usual });
  assert.equal(result.firstBad, ids[1]);
  return steps.names;
}

for (const paused of [true, false])
  test(`whatever call of the host fails, a guest that ${paused ? 'was paused' : 'ran'} is back`, async (t) => {
    const stage = await bisectStage(t, plan);
    const { host, domid, points } = stage;
    const ids = await takePoints(stage, 3);
    if (paused) await host.pause(domid);
    const before = paused ? (await digestDomain(host, 'guest')).digest : null;
    const names = await run(stage, ids, () => undefined);
    assert.ok(
      ['rewrite', 'complete', 'pause'].every((name) => names.includes(name)),
      names.join(),
    );
    let [failed, back] = [0, 0];
    for (const [number, name] of names.entries())
      for (const when of ['before', 'after'] as const) {
        if (when === 'after' && gives.includes(name)) continue;
        const what = `${when} call ${number}, ${name}`;
        const error = await run(stage, ids, failing(number, when)).then(() => null, asDormouseError);
        if (error) failed++;
        if (error?.message.endsWith('is back where it was')) back++;
        assert.ok(error === null || error.code === 'NO_MEMORY', `${what}: ${error?.message ?? ''}`);
        const state = { paused, building: false, shutdown: null, rewinding: false };
        assert.deepEqual(runState(await host.info(domid)), state, what);
        if (before !== null) assert.equal((await digestDomain(host, 'guest')).digest, before, what);
        assert.deepEqual(
          (await points.list()).filter(({ pinned }) => pinned),
          [],
          what,
        );
        const { memories, readers, rewinds } = nativeSteps().openObjects();
        assert.deepEqual([memories, readers, rewinds], [0, 0, 0], what);
      }
    t.diagnostic(`${names.length} calls, ${failed} times it failed, ${back} of them while it was away`);
    assert.ok(failed > names.length && back > 0);
    if (paused) await host.unpause(domid);
    assert.equal(await finalDigest(host, 'guest', plan), await untouchedDigest(host, plan));
  });

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoints as times } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';

interface Seen {
  readonly times: number;
  readonly pauseP50Ms: number;
  readonly pauseP99Ms: number;
  readonly elapsedP50Ms: number;
}

describe('checkpoints of guests on real Xen', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab();
  });
  after(() => lab.stop());

  /** The states that xl saw the guest in until the work was done; dom0's one vCPU has other things to do. */
  async function watch(name: string, work: Promise<unknown>): Promise<Set<string>> {
    const states = new Set<string>();
    const progress = { done: false };
    const end = work.finally(() => (progress.done = true)).catch(() => undefined);
    while (!progress.done) {
      const script = `xl list ${name} | tail -n 1 | awk '{ print $5 }'`;
      for (const state of (await lab.must(script, { timeoutMs: 300_000 })).split('\n'))
        if (state) states.add(state);
      await sleep(2000);
    }
    await end;
    return states;
  }

  for (const type of ['pvh', 'pv'] as const)
    test(`${type}: ${times} light ones in a row, never shut down, self-check clean`, async (t) => {
      const guest = await Guest.create(lab, { name: `light-${type}`, type, memoryMib: 128 });
      const script = `node /project/dist/lab/live_checks.js ${guest.name} ${times} /images/light`;
      const work = lab.must(script, { timeoutMs: 60_000 + times * 40_000 });
      const states = await watch(guest.name, work);
      const seen = JSON.parse(await work) as Seen;
      t.diagnostic(`${type}: ${JSON.stringify(seen)}`);
      assert.equal(seen.times, times);
      for (const state of states) assert.equal(state[3], '-', `state ${state}`);
      await guest.waitTicks(5);
      await guest.destroy();
    });

  for (const type of ['pv', 'pvh'] as const)
    test(`${type}: a cooperative one and save -c leave the guest running and clean`, async (t) => {
      const guest = await Guest.create(lab, { name: `coop-${type}`, type, memoryMib: 128 });
      for (const command of ['checkpoint --mode cooperative', 'save -c']) {
        const image = `/images/${command.slice(0, 4)}`;
        const out = await lab.must(`dormouse --json ${command} ${guest.name} ${image}; rm ${image}`, {
          timeoutMs: 300_000,
        });
        t.diagnostic(`${type} ${command}: ${out.replace(/\s+/g, ' ')}`);
        await guest.waitTicks(3);
      }
      await guest.destroy();
    });
});

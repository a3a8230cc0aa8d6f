/**
 * A rollback to a point that holds a disk, cut short at every call it makes of its host and while the disk is put back: either neither the
 * domain nor the disk has changed, or the domain stays paused until the next rollback has made both what they were.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { keepersOf } from '../../src/disks/keep.js';
import { DormouseError } from '../../src/errors.js';
import type { Host } from '../../src/host/contract.js';
import { PointSession } from '../../src/protect/point_session.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import { PointStore } from '../../src/store/store.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { copyingProgram, filledWith, newDisk, withDisks } from '../support/disk_stage.js';
import { bootGuest, finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { startTestHost, until } from '../support/hosts.js';
import { steppingHost } from '../support/stepping_host.js';

const plan: GuestPlan = { program: 'churner', vcpus: 1, seed: 11, steps: 300, rate: 3000, memoryMib: 8 };

async function setUp(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-disks-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const embedded = await startTestHost(t, { memoryMib: 64 });
  t.after(closeWorkers);
  const untouched = await untouchedDigest(embedded, plan);
  await bootGuest(embedded, 'guest', plan);
  mkdirSync(join(dir, 'kept'));
  const { program } = copyingProgram(join(dir, 'kept'));
  const disk = newDisk(dir, 'xvda');
  const host = withDisks(embedded, () => [disk]);
  const way = { kind: 'command', program } as const;
  const store = await PointStore.open(join(dir, 'store'), { create: true, keepers: keepersOf(program) });
  const session = await PointSession.open(host, 'guest', store);
  const { record } = await session.take({ mode: 'light', reason: 'protect', disks: way });
  await session.end();
  const goBack = (by: Host, safety = false): Promise<unknown> =>
    rollbackToPoint(by, 'guest', join(dir, 'store'), record.id, { safety, disks: way });
  const holds = (word: string): boolean => readFileSync(disk.path).equals(filledWith(word));
  const write = (word: string): void => writeFileSync(disk.path, filledWith(word), { flag: 'r+' });
  const fails = join(dir, 'kept/fails');
  const points = store.points(record.domain.uuid);
  return { embedded, host, dir, goBack, holds, write, fails, untouched, points };
}

for (const safety of [false, true])
  test(`whatever call fails, ${safety ? 'with' : 'without'} a safety point`, async (t) => {
    const { embedded, host, goBack, holds, write, untouched, points } = await setUp(t);
    const counting = steppingHost(host, () => undefined);
    await goBack(counting.host, safety);
    const { names } = counting.steps;
    assert.ok(names.includes('rewrite') && names.includes('complete'), names.join());
    const seen = { half: 0, before: 0, done: 0 };
    for (const [number, name] of names.entries())
      for (const when of ['before', 'after'] as const) {
        // What was given is lost with its answer.
        if (when === 'after' && ['acquire', 'openToRewrite', 'snapshot'].includes(name)) continue;
        write('later');
        const failing = steppingHost(host, (call, at) => {
          if (call === number && at === when) throw new DormouseError('HOST_LACKS', 'injected');
        });
        const what = `${when} ${name}`;
        await goBack(failing.host, safety).catch((thrown: unknown) => {
          assert.ok(
            thrown instanceof DormouseError && thrown.code === 'HOST_LACKS',
            `${what}: ${String(thrown)}`,
          );
        });
        await until('the lease ends', 5000, async () => (await embedded.status()).leases.length === 0);
        const { rewinding = false, paused } = await host.find('guest');
        if (rewinding) {
          seen.half++;
          await goBack(host);
          assert.ok(holds('at first'), what);
        } else {
          assert.equal(paused, false, what);
          assert.ok(holds('later') || holds('at first'), what);
          seen[holds('later') ? 'before' : 'done']++;
        }
      }
    t.diagnostic(JSON.stringify(seen));
    assert.ok(seen.half >= 3 && seen.before >= 5 && seen.done >= 1, JSON.stringify(seen));
    const { removed, stuck } = await points.prune({ last: 100 });
    assert.deepEqual(stuck, []);
    assert.ok(removed.length <= names.length, 'what failed between image and record');
    await goBack(host);
    assert.equal(await finalDigest(embedded, 'guest', plan), untouched);
  });

test('a disk that cannot be put back leaves the domain paused until it can', async (t) => {
  const { embedded, host, goBack, holds, write, fails, untouched } = await setUp(t);
  write('later');
  const failing = steppingHost(host, (_call, at, name) => {
    if (name === 'rewrite' && at === 'after') writeFileSync(fails, '');
  });
  await assert.rejects(goBack(failing.host), {
    code: 'COMMAND_FAILED',
    guest: 'paused',
    message: /put-back .* ended with 3: out of tape; guest is half rewound and stays paused$/u,
  });
  const { rewinding, domid } = await host.find('guest');
  assert.equal(rewinding, true);
  await assert.rejects(host.unpause(domid), { code: 'DOMAIN_WRONG_STATE' });
  await assert.rejects(goBack(host), { code: 'COMMAND_FAILED' });
  rmSync(fails);
  await goBack(host);
  assert.ok(holds('at first'));
  assert.equal(await finalDigest(embedded, 'guest', plan), untouched);
});

/** What ends a `bisect` early, at any time: the domain goes back to where it was, and where it cannot it is said what leads back. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/addon.js';
import { digestDomain } from '../../src/digest/digest.js';
import type { DormouseError } from '../../src/errors.js';
import { PointSession } from '../../src/protect/point_session.js';
import { restore } from '../../src/restore/restore.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import {
  type BisectStage,
  bisectStage,
  doingAt,
  runBisect,
  runState,
  takePoints,
} from '../support/bisect_stage.js';
import { errorOf, type Running, startCommand } from '../support/command.js';
import { Dice } from '../support/dice.js';
import { finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { isAlive, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { killSeed } from '../support/killed.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 71, steps: 4000, rate: 1500, memoryMib: 8 };

const dormouse = `'${process.execPath}' '${join(packageRoot, 'bin/dormouse')}'`;

async function fails(body: Promise<unknown>): Promise<DormouseError> {
  return await body.then(
    () => assert.fail('it did not fail'),
    (thrown: unknown) => thrown as DormouseError,
  );
}

/** Fails so, with the guest as it was: paused, with the same memory, and the store goes on from there. */
async function failsAndIsBack(stage: BisectStage, body: () => Promise<unknown>): Promise<DormouseError> {
  const { host, points, domid } = stage;
  const [state, { digest }] = [runState(await host.info(domid)), await digestDomain(host, 'guest')];
  const error = await fails(body());
  assert.deepEqual(runState(await host.info(domid)), state);
  assert.equal((await digestDomain(host, 'guest')).digest, digest);
  const last = (await points.list()).at(-1);
  assert.deepEqual(
    [(await points.current())?.id, last?.reason, last?.pinned],
    [last?.id, 'before-rollback', false],
  );
  assert.equal(error.guest, 'untouched');
  return error;
}

test('an end that is not what it should be, a COMMAND that fails: the guest is back', async (t) => {
  const stage = await bisectStage(t);
  const ids = await takePoints(stage, 5);
  await stage.host.pause(stage.domid);
  const [good = '', , middle = '', , bad = ''] = ids;
  const cases = [
    [[], {}, 'USAGE', `point ${bad} is not bad: COMMAND ended with 0 there`, 2],
    [[[good], 'exit 1'], {}, 'USAGE', `point ${good} is not good: COMMAND ended with 1 there`, 1],
    [[[good], 'exit 125'], {}, 'USAGE', `point ${good} is not good: COMMAND ended with 125 there`, 1],
    [
      [[good], 'sleep 60'],
      { timeoutMs: 50 },
      'USAGE',
      `point ${good} is not good: COMMAND took too long there`,
      1,
    ],
    [[[middle], 'exit 128'], { trustEnds: true }, 'COMMAND_FAILED', 'COMMAND ended with 128', 0],
    [[[middle], 'kill -SEGV $$'], { trustEnds: true }, 'COMMAND_FAILED', 'COMMAND was killed by SIGSEGV', 0],
  ] as const;
  for (const [at, options, code, message, trials] of cases) {
    const command = at.length === 0 ? ['true'] : doingAt(at);
    const error = await failsAndIsBack(stage, () => runBisect(stage, ids, command, options));
    assert.deepEqual([error.code, error.message], [code, `${message}; guest is back where it was`]);
    assert.equal((error.done?.trials as unknown[]).length, trials);
  }
});

test('what takes too long is bad, and all that it started ends with it', async (t) => {
  const stage = await bisectStage(t);
  const ids = await takePoints(stage, 4);
  const pid = join(tempDir(t), 'pid');
  const hangs = `sh -c 'trap "" TERM; echo $$ > ${pid}; while :; do sleep 1; done' & wait`;
  const command = doingAt([[ids[2] ?? ''], hangs], [[ids[3] ?? ''], 'exit 1']);
  const result = await runBisect(stage, ids, command, { timeoutMs: 1000.5 });
  assert.equal(result.firstBad, ids[2]);
  assert.deepEqual(result.trials.find(({ point }) => point === ids[2])?.exitCode, null);
  const left = Number(readFileSync(pid, 'utf8'));
  await until('it is gone', 5000, () => !isAlive(left));
});

test('before anything is touched: no program, no line, no end, another tool at work', async (t) => {
  const stage = await bisectStage(t);
  const { host, dir, domid, points } = stage;
  const ids = await takePoints(stage, 3);
  const [first = '', second = '', third = ''] = ids;
  const refused = async (code: string, message: RegExp, body: Promise<unknown>): Promise<void> => {
    const error = await fails(body);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
  };
  const by = (...line: string[]): Promise<unknown> => runBisect(stage, line, ['true']);
  await refused('USAGE', /no program 'no-such-program'/u, runBisect(stage, ids, ['no-such-program']));
  await refused('USAGE', /no program '\/etc\/passwd'/u, runBisect(stage, ids, ['/etc/passwd']));
  await refused('USAGE', /is given as good and as bad/u, by(second, second));
  await refused('USAGE', /comes after/u, by(third, first));
  await refused('POINT_NOT_FOUND', /no point/u, by('1999', first));
  const session = await PointSession.open(host, 'guest', stage.store);
  await refused('LOCKED', /is held by/u, by(first, third));
  await session.end();
  assert.deepEqual(await points.ids(), ids);
  assert.equal((await host.info(domid)).paused, false);
  await rollbackToPoint(host, 'guest', dir, second, { safety: false });
  const [other = ''] = await takePoints(stage, 1);
  await refused('USAGE', /did not lead to/u, by(third, other));
  assert.equal((await runBisect(stage, [first, other], doingAt([[other], 'exit 1']))).points, 3);
});

test('what would not lead back is found before the guest is touched', async (t) => {
  const stage = await bisectStage(t);
  const { host, points, domid } = stage;
  const ids = await takePoints(stage, 3);
  const real = host.geometry.bind(host);
  // From when it is kept on it is no domain of that size any more.
  t.mock.method(host, 'geometry', async (asked: number) => {
    const geometry = await real(asked);
    return (await points.ids()).length > 3 ? { ...geometry, nrPfns: geometry.nrPfns + 1 } : geometry;
  });
  const error = await fails(runBisect(stage, ids, ['true'], { trustEnds: true }));
  assert.deepEqual([error.code, error.guest], ['DOMAIN_WRONG_STATE', 'untouched']);
  assert.match(error.message, /^nothing would lead back to where guest is now: the image has \d+ pfns/u);
  assert.equal((await host.info(domid)).paused, false);
  assert.deepEqual([(await points.list()).length, (await points.list()).at(-1)?.pinned], [4, false]);
});

test('a point whose image is damaged is skipped, and the guest not touched for it', async (t) => {
  const stage = await bisectStage(t);
  const { points, host, domid } = stage;
  const ids = await takePoints(stage, 5);
  // Its own image: those after it are built on it, and cannot be judged either.
  truncateSync(await points.imagePath(await points.find(ids[3] ?? '')), 4096);
  const result = await runBisect(stage, ids, ['true'], { trustEnds: true });
  assert.deepEqual([result.firstBad, result.lastGood, result.suspects], [null, ids[2], ids.slice(3)]);
  const skipped = result.trials.find(({ point }) => point === ids[3]);
  assert.deepEqual([skipped?.verdict, skipped?.exitCode], ['skip', null]);
  assert.match(skipped?.why ?? '', /cannot be read/u);
  assert.equal((await host.info(domid)).paused, false);
});

test('a COMMAND that ends the domain: it is said that it is gone, and what is left of it', async (t) => {
  const stage = await bisectStage(t, plan);
  const { host, points } = stage;
  const ids = await takePoints(stage, 3);
  const destroys = `${dormouse} destroy --host embedded:test "$DORMOUSE_DOMID"`;
  const error = await fails(
    runBisect(stage, ids, doingAt([[ids[1] ?? ''], destroys], [ids.slice(2), 'exit 1'])),
  );
  assert.deepEqual([error.code, error.guest], ['DOMAIN_NOT_FOUND', 'gone']);
  const safety = await points.latest();
  assert.ok(
    safety && error.advice.includes(`dormouse restore guest ${safety.id} --store ${stage.dir}`),
    error.advice,
  );
  await restore(host, await points.imagePath(safety), { paused: false, trustConfig: true });
  assert.equal(await finalDigest(host, 'guest', plan), await untouchedDigest(host, plan));
});

test('of a guest that has crashed, without a safety point, the last good point is what is left', async (t) => {
  const crasher: GuestPlan = { program: 'crasher', vcpus: 1, seed: 5, steps: 6000, rate: 3000, memoryMib: 8 };
  const stage = await bisectStage(t, crasher);
  const { host, domid } = stage;
  const ids = await takePoints(stage, 4);
  await until('it crashes', 10_000, async () => (await host.info(domid)).shutdown === 'crash');
  const command = doingAt([ids.slice(2), 'exit 1']);
  const refused = await fails(runBisect(stage, ids, command, { leave: 'good' }));
  assert.equal(refused.code, 'DOMAIN_WRONG_STATE');
  assert.match(refused.advice, /--no-safety/u);
  const result = await runBisect(stage, ids, command, { leave: 'good', safety: false });
  assert.deepEqual([result.firstBad, result.safetyPoint], [ids[2], null]);
  const back = await host.info(domid);
  assert.deepEqual([back.paused, back.shutdown], [false, null]);
  const failed = await fails(
    runBisect(stage, ids, doingAt([ids.slice(3), 'exit 200']), { leave: 'good', safety: false }),
  );
  assert.equal(failed.message, `COMMAND ended with 200; guest is at point ${ids[0]}`);
});

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGKILL', null],
] as const)
  test(`${signal} while COMMAND runs`, async (t) => {
    const stage = await bisectStage(t, plan);
    const { host, dir, domid, points } = stage;
    const ids = await takePoints(stage, 5);
    const mark = join(tempDir(t), 'mark');
    const [, , ...script] = doingAt(
      [[ids[2] ?? ''], `echo $$ > '${mark}'; exec sleep 60`],
      [ids.slice(4), 'exit 1'],
    );
    const args = ['--good', ids[0] ?? '', '--bad', ids[4] ?? '', '--', 'sh', '-c', ...script];
    const run = startCommand(t, [
      'bisect',
      'guest',
      '--host',
      'embedded:test',
      '--json',
      '--store',
      dir,
      ...args,
    ]);
    await until('it is in the middle', 30_000, () => existsSync(mark) && readFileSync(mark, 'utf8') !== '');
    run.kill(signal);
    // Whoever waits for the tool's stderr waits for COMMAND, which nobody ends then.
    const pid = Number(readFileSync(mark, 'utf8'));
    if (signal === 'SIGKILL') process.kill(pid, 'SIGKILL');
    const ended = await run.ended;
    assert.equal(ended.exitCode, exitCode, ended.stderr);
    const safety = (await points.list()).at(-1);
    assert.equal(safety?.reason, 'before-rollback');
    assert.equal((await host.info(domid)).paused, false);
    if (signal === 'SIGKILL') {
      assert.deepEqual([(await points.current())?.id, safety.pinned], [ids[2], true]);
      await rollbackToPoint(host, 'guest', dir, safety.id, { safety: false });
    } else {
      const error = errorOf(ended);
      assert.deepEqual([error.name, error.guest], ['CANCELLED', 'resumed']);
      assert.match(error.message, /cancelled while COMMAND ran; guest is back where it was$/u);
      assert.equal((error.done?.trials as unknown[]).length, 2);
      assert.equal(isAlive(pid), false, 'COMMAND goes on');
      assert.deepEqual([(await points.current())?.id, safety.pinned], [safety.id, false]);
    }
    assert.equal(await finalDigest(host, 'guest', plan), await untouchedDigest(host, plan));
  });

const rounds = 20;

test(`signals at ${rounds} random moments`, async (t) => {
  const stage = await bisectStage(t);
  const { host, dir, domid, points } = stage;
  const ids = await takePoints(stage, 8);
  await host.pause(domid);
  const { digest } = await digestDomain(host, 'guest');
  const [good = '', bad = ''] = [ids[0], ids.at(-1)];
  const [, , ...script] = doingAt([ids.slice(3), 'exit 1']);
  const args = [
    '--host',
    'embedded:test',
    '--json',
    '--good',
    good,
    '--bad',
    bad,
    '--',
    'sh',
    '-c',
    ...script,
  ];
  const run = (): Running => startCommand(t, ['bisect', 'guest', '--store', dir, ...args]);
  const startedMs = performance.now();
  assert.equal((await run().ended).exitCode, 0);
  // What the machine does beside this may end: whoever is done before its signal was given too long.
  let paceMs = performance.now() - startedMs;
  t.diagnostic(`seed ${killSeed}`);
  const dice = new Dice(killSeed);
  const seen = { done: 0, cancelled: 0, killed: 0, away: 0 };
  for (let i = 0; i < rounds; i++) {
    const last = (await points.ids()).at(-1) ?? '';
    const signal = (['SIGINT', 'SIGKILL', 'SIGTERM', 'SIGKILL'] as const)[i % 4] ?? 'SIGINT';
    const tool = run();
    // However slow the machine is, some are on their way when the signal comes.
    const away = i % 4 === 1;
    if (away)
      await until('it is on its way', 60_000, async () => (await points.ids()).some((id) => id > last));
    await sleep(
      away ? dice.below(Math.ceil(paceMs / 4)) : paceMs / 4 + dice.below(Math.ceil((paceMs * 3) / 4)),
    );
    tool.kill(signal);
    const ended = await tool.ended;
    await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
    const safety = (await points.ids()).find((id) => id > last);
    if (ended.signal !== null) {
      seen.killed++;
      // What the help says: it may run, and the last point leads back. Without one it was not touched.
      if ((await host.info(domid)).rewinding !== true) await host.pause(domid);
      if (safety !== undefined) await rollbackToPoint(host, 'guest', dir, safety, { safety: false });
      if (safety !== undefined) seen.away++;
    } else if (ended.exitCode === 0) {
      seen.done++;
      paceMs *= 0.7;
    } else {
      seen.cancelled++;
      assert.equal(errorOf(ended).name, 'CANCELLED', ended.stderr);
      assert.deepEqual(
        (await points.list()).filter(({ id, pinned }) => id > last && pinned),
        [],
      );
    }
    assert.deepEqual(runState(await host.info(domid)), {
      ...{ paused: true, building: false, shutdown: null, rewinding: false },
    });
    assert.equal((await digestDomain(host, 'guest')).digest, digest, `round ${i}`);
  }
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.cancelled > 0 && seen.away > 0);
});

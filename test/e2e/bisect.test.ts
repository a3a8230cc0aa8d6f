/** `bisect` finds the point at which a guest turned bad, and the guest is afterwards what it was before. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { packageRoot } from '../../src/addon.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import { rollbackToPoint } from '../../src/rollback/to_point.js';
import { type BisectStage, bisectStage, doingAt, runBisect, takePoints } from '../support/bisect_stage.js';
import { Dice } from '../support/dice.js';
import { finalDigest, type GuestPlan, untouchedDigest } from '../support/guests.js';
import { tempDir } from '../support/images.js';

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 61, steps: 3000, rate: 1500, memoryMib: 8 };

/** A COMMAND that judges by the domain's memory and registers: bad unless they are those of one of these points. */
async function goodAre(t: TestContext, { points }: BisectStage, ids: readonly string[]): Promise<string[]> {
  const list = join(tempDir(t), 'good');
  const digests: string[] = [];
  for (const id of ids)
    digests.push((await digestImage(await points.imagePath(await points.find(id)))).digest);
  writeFileSync(list, digests.map((digest) => `${digest}\n`).join(''));
  const dormouse = [process.execPath, join(packageRoot, 'bin/dormouse')].map((word) => `'${word}'`).join(' ');
  const script = `set -e; digest=$(${dormouse} digest "$DORMOUSE_DOMID" --host embedded:test); grep -qxF "$digest" '${list}'`;
  return ['sh', '-c', script];
}

/** Points of a guest that was taken back on the way: those of its line, and those that it left behind. */
async function branched(stage: BisectStage, dice: Dice): Promise<{ line: string[]; left: string[] }> {
  const { host, dir } = stage;
  const first = await takePoints(stage, 3 + dice.below(6));
  const at = 1 + dice.below(first.length - 1);
  const { safetyPoint } = await rollbackToPoint(host, 'guest', dir, first[at] ?? '', { safety: true });
  const then = await takePoints(stage, 3 + dice.below(8));
  return { line: [...first.slice(0, at + 1), ...then], left: [...first.slice(at + 1), safetyPoint ?? ''] };
}

test('the first bad point is found by what the guest is, wherever it is', async (t) => {
  const stage = await bisectStage(t, plan);
  const { host, points, domid } = stage;
  const seed = Number(process.env.DORMOUSE_TEST_SEED ?? 1 + Math.floor(Math.random() * 1e9));
  t.diagnostic(`DORMOUSE_TEST_SEED=${seed}`);
  const dice = new Dice(seed);
  const { line, left } = await branched(stage, dice);
  await host.pause(domid);
  const before = (await digestDomain(host, 'guest')).digest;
  for (let round = 0; round < 3; round++) {
    const bad = 1 + dice.below(line.length - 1);
    const command = await goodAre(t, stage, line.slice(0, bad));
    const result = await runBisect(stage, line, command, { paused: true });
    assert.deepEqual([result.firstBad, result.lastGood], [line[bad], line[bad - 1]]);
    assert.deepEqual([result.suspects, result.points, result.left], [[line[bad]], line.length, 'before']);
    assert.ok(result.trials.length <= 2 + Math.ceil(Math.log2(line.length - 1)), `${result.trials.length}`);
    for (const { point, verdict } of result.trials) {
      assert.ok(!left.includes(point), `${point} was left behind`);
      assert.equal(verdict, line.indexOf(point) < bad ? 'good' : 'bad', point);
    }
    assert.equal((await digestDomain(host, 'guest')).digest, before);
    const { id, pinned } = (await points.list()).at(-1) ?? {};
    assert.deepEqual([id, pinned, (await points.current())?.id], [result.safetyPoint, false, id]);
  }
  await host.unpause(domid);
  assert.equal(await finalDigest(host, 'guest', plan), await untouchedDigest(host, plan));
});

test('points that were forgotten are passed over, the damaged and the impossible to judge skipped', async (t) => {
  const stage = await bisectStage(t);
  const { points } = stage;
  const ids = await takePoints(stage, 12);
  const gone = [2, 3, 7].map((at) => ids[at] ?? '');
  assert.deepEqual(await points.forget(gone), gone);
  const line = ids.filter((id) => !gone.includes(id));
  // Of nine points, four are good.
  const [middle = '', next = ''] = [line[4], line[3]];
  writeFileSync(await points.imagePath(await points.find(line.at(-1) ?? '')), 'no image any more');
  const damaged = await runBisect(stage, line.slice(0, -1), doingAt([line.slice(4), 'exit 7']));
  assert.equal(damaged.firstBad, middle, 'a damaged point beyond the line is nobody’s business');
  const open = await runBisect(
    stage,
    line.slice(0, -1),
    doingAt([[middle, next], 'exit 125'], [line.slice(5), 'exit 1']),
  );
  assert.deepEqual([open.firstBad, open.lastGood, open.suspects], [null, line[2], line.slice(3, 6)]);
  const verdicts = open.trials.map(({ point, verdict, exitCode }) => [point, verdict, exitCode]);
  assert.deepEqual(verdicts.slice(0, 3), [
    [line[0], 'good', 0],
    [line[7], 'bad', 1],
    [next, 'skip', 125],
  ]);
});

test('it is left at the last good point, or at the first bad one, and goes on from there', async (t) => {
  const stage = await bisectStage(t);
  const { host, points, domid } = stage;
  const ids = await takePoints(stage, 6);
  await host.pause(domid);
  const command = doingAt([ids.slice(2), 'exit 1']);
  for (const [leave, at] of [
    ['good', 1],
    ['bad', 2],
  ] as const) {
    const result = await runBisect(stage, ids, command, { leave });
    assert.deepEqual([result.firstBad, result.left, result.paused], [ids[2], leave, true]);
    const record = await points.find(ids[at] ?? '');
    const { digest } = await digestImage(await points.imagePath(record));
    assert.equal((await digestDomain(host, 'guest')).digest, digest);
    assert.equal((await points.current())?.id, ids[at]);
    assert.equal((await host.info(domid)).paused, true);
    assert.notEqual(result.safetyPoint, null);
  }
  await host.unpause(domid);
  const [next = ''] = await takePoints(stage, 1);
  assert.equal((await points.find(next)).parent, ids[2]);
});

test('the domain runs while COMMAND runs, or stands; it is told which domain and point', async (t) => {
  const stage = await bisectStage(t);
  const { host, domid } = stage;
  const ids = await takePoints(stage, 2);
  const dir = tempDir(t);
  const told = 'echo "$DORMOUSE_DOMAIN $DORMOUSE_DOMID $DORMOUSE_HOST"';
  const dormouse = `'${process.execPath}' '${join(packageRoot, 'bin/dormouse')}'`;
  const env = { DORMOUSE_HOST: 'embedded:test' };
  const states = [
    [false, false, 'running'],
    [true, false, 'running'],
    [false, true, 'paused'],
  ] as const;
  for (const [wasPaused, paused, state] of states) {
    if (wasPaused) await host.pause(domid);
    const script = `test "$DORMOUSE_POINT" = ${ids[0]} || exit 1; ${told} > '${dir}/told'; ${dormouse} domstate guest > '${dir}/state'`;
    const result = await runBisect(stage, ids, ['sh', '-c', script], { paused, env });
    assert.equal(result.firstBad, ids[1]);
    assert.equal(readFileSync(join(dir, 'told'), 'utf8'), `guest ${domid} embedded:test\n`);
    assert.match(
      readFileSync(join(dir, 'state'), 'utf8'),
      new RegExp(`^(${state}|${paused ? state : 'idle'})\n$`, 'u'),
    );
    assert.equal((await host.info(domid)).paused, wasPaused);
    await host.unpause(domid);
  }
});

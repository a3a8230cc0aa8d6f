/** A guest breaks on purpose while it is protected; bisect finds between which two points. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, test } from 'node:test';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import type { Tick } from './ticks.js';

const store = '/images/points';
/** The guest breaks with this tick, a minute after protection begins. */
const breakTick = 60;

/** Exit code 0 as long as the first whole tick that the guest says from now on is of one that is not broken; 125 without any. */
const command = `log=/var/log/xen/console/guest-$DORMOUSE_DOMAIN.log
from=$(($(stat -c %s $log) + 1))
for i in $(seq 120); do
  tick=$(tail -c +$from $log | grep -o '^tick .* broken=[0-9]* *.$' | head -n 1)
  case "$tick" in *broken=0*) exit 0 ;; *broken=*) exit 1 ;; esac
  sleep 0.5
done
exit 125
`;

interface Found {
  readonly firstBad: string | null;
  readonly lastGood: string;
  readonly points: number;
  readonly trials: readonly { point: string; verdict: string }[];
}

describe('bisect of a real guest', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab({ cpus: 4 });
    await lab.must(`cat > /images/works <<'EOF'\n${command}EOF`);
  });
  after(() => lab.stop());

  async function points(name: string): Promise<readonly string[]> {
    const stdout = await lab.must(`dormouse --json points ${name} --store ${store}`);
    return (JSON.parse(stdout) as { points: { point: string }[] }).points.map(({ point }) => point);
  }

  /** Points of each second, until some seconds after it broke. */
  async function protectUntilBroken(guest: Guest): Promise<void> {
    const pid = `/images/${guest.name}.pid`;
    const protection = lab.exec(
      `echo $$ > ${pid}; exec dormouse protect ${guest.name} --store ${store} --every 1s`,
      { timeoutMs: 700_000 },
    );
    const end = Date.now() + 600_000;
    const broken = (ticks: readonly Tick[]): boolean => ticks.filter((tick) => tick.broken > 0).length > 5;
    while (!broken(await guest.ticks()) && Date.now() < end) await sleep(500);
    await lab.must(`kill -TERM $(cat ${pid})`);
    const { code, stderr } = await protection;
    assert.equal(code, 0, stderr);
    assert.ok(broken(await guest.ticks()), stderr);
  }

  /** What it says first after it went back; it must be further on before. */
  async function firstTickAt(guest: Guest, point: string): Promise<Tick> {
    await guest.waitCount(breakTick + 8);
    const seen = (await guest.ticks()).length;
    await lab.must(`dormouse rollback ${guest.name} ${point} --store ${store} --no-safety`, {
      timeoutMs: 300_000,
    });
    for (let tries = 0; tries < 10; tries++) {
      const ticks = (await guest.ticks()).slice(seen - 1);
      const first = ticks.find(({ count }, i) => count < (ticks[i - 1]?.count ?? 0));
      if (first) return first;
      await guest.waitTicks(1);
    }
    assert.fail(`it did not go back to ${point}`);
  }

  for (const type of ['pvh', 'pv'] as const)
    test(`${type}: the second in which it was broken on purpose`, async (t) => {
      const name = `bisect-${type}`;
      const guest = await Guest.create(lab, {
        name,
        type,
        vcpus: 1,
        breakAfterS: breakTick,
        clockUs: 1_000_000,
      });
      await protectUntilBroken(guest);
      const taken = await points(name);
      t.diagnostic(`${taken.length} points`);
      const before = (await guest.ticks()).at(-1);
      const { code, stdout, stderr } = await lab.exec(
        `dormouse --json bisect ${name} --store ${store} --good ${taken[0] ?? ''} --bad ${taken.at(-1) ?? ''} -- sh /images/works`,
        { timeoutMs: 900_000 },
      );
      assert.equal(code, 0, `${stdout}${stderr}`);
      const found = JSON.parse(stdout) as Found;
      t.diagnostic(`${found.points} points, ${found.trials.length} trials: ${found.firstBad ?? ''}`);
      assert.ok(found.trials.length <= 3 + Math.ceil(Math.log2(found.points)));
      await guest.waitTicks(2);
      assert.ok(((await guest.ticks()).at(-1)?.count ?? 0) > (before?.count ?? 0), 'it is where it was');
      assert.equal(taken.indexOf(found.firstBad ?? ''), taken.indexOf(found.lastGood) + 1);
      const good = await firstTickAt(guest, found.lastGood);
      const bad = await firstTickAt(guest, found.firstBad ?? '');
      t.diagnostic(`the last good point ticks on with ${good.count}, the first bad one with ${bad.count}`);
      assert.equal(good.broken, 0);
      // The command hears a tick or two after the point's.
      assert.ok(bad.count >= breakTick - 2, `the first bad one ticks on with ${bad.count}`);
      await guest.destroy();
    });
});

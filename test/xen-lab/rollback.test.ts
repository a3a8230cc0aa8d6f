/** Guests are protected and taken back in place, with their network at work; tools are killed at that. */
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { pointsInARow, rollbacks } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { random } from './random.js';

const store = '/images/points';
const seed = Number(process.env.DORMOUSE_LAB_SEED ?? Math.floor(Math.random() * 2 ** 31));

interface Points {
  readonly points: readonly { readonly point: string; readonly pauseMs: number }[];
}
interface WentBack {
  readonly putPages: number;
  readonly pauseMs: number;
  readonly safetyPoint: string | null;
}

describe('rollback in place on real Xen', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab({ cpus: 5, scratchGib: 12 });
  });
  after(() => lab.stop());

  /** What xl says of the guest and its devices, but for the time that it ran and its state. */
  const seenByXl = (name: string): Promise<string> =>
    lab.must(
      `xl list ${name} | awk '{ print $1, $2, $3, $4 }'; xl network-list ${name}; xl block-list ${name}; xl vcpu-list ${name} | awk '{ print $1, $3 }'`,
    );

  const dormouse = (command: string): Promise<string> =>
    lab.must(`dormouse --json ${command}`, { timeoutMs: 900_000 });

  async function pointsOf(name: string): Promise<Points['points']> {
    return (JSON.parse(await dormouse(`points ${name} --store ${store}`)) as Points).points;
  }

  /** The pauses of its points, and how long it stands for one `xl save -c`, by its own clock. */
  async function besideXl(t: TestContext, guest: Guest, points: Points['points']): Promise<void> {
    const pausesMs = points.map(({ pauseMs }) => pauseMs).sort((a, b) => a - b);
    const at = (part: number): string => (pausesMs[Math.ceil(part * pausesMs.length) - 1] ?? NaN).toFixed(0);
    const seen = (await guest.ticks()).length;
    await lab.must(`xl save -c ${guest.name} /images/beside.xl && rm /images/beside.xl`, {
      timeoutMs: 900_000,
    });
    await guest.waitTicks(3);
    const gapsMs = (await guest.ticks()).slice(seen).map(({ gapBootUs }) => gapBootUs / 1000);
    t.diagnostic(
      `${guest.name} stood ${at(0.5)} ms (p50), ${at(0.99)} ms (p99) for ${pausesMs.length} points; ` +
        `${Math.max(...gapsMs).toFixed(0)} ms, its look at the clock each second included, for xl save -c`,
    );
  }

  /** Takes it back and has it check itself: it counts on from the point. */
  async function goBack(
    t: TestContext,
    guest: Guest,
    point: string,
    more = '--no-safety',
  ): Promise<WentBack> {
    const seen = (await guest.ticks()).length;
    const command = `dormouse --json rollback ${guest.name} ${point} --store ${store} ${more}`;
    const { code, stdout, stderr } = await lab.exec(command, { timeoutMs: 900_000 });
    assert.equal(code, 0, stderr);
    for (const line of stderr.split('\n').filter((text) => text.includes('timers'))) t.diagnostic(line);
    const done = JSON.parse(stdout) as WentBack;
    t.diagnostic(`${guest.name} to ${point}: ${done.putPages} pages, paused ${Math.round(done.pauseMs)} ms`);
    const ticks = await guest.waitTicks(4);
    const counts = (await guest.ticks()).slice(Math.max(0, seen - 1)).map(({ count }) => count);
    // To an earlier moment, or to a later one of what it was before.
    const back = counts.some((count, i) => i > 0 && count !== (counts[i - 1] ?? 0) + 1);
    assert.ok(back, `it counts on: ${counts.join()}`);
    const last = ticks.at(-1);
    assert.deepEqual([last?.netLost, last?.netBad, last?.bad], [0, 0, 0]);
    assert.ok((last?.netReceived ?? 0) > (ticks[0]?.netReceived ?? Infinity), 'its network goes on');
    assert.ok((last?.naps ?? 0) > (ticks[0]?.naps ?? Infinity), 'each vCPU wakes by its own timer');
    assert.ok(done.putPages > 0, 'something was put back');
    return done;
  }

  async function refused(command: string, why: RegExp): Promise<void> {
    const { code, stderr } = await lab.exec(`dormouse ${command}`, { timeoutMs: 300_000 });
    assert.notEqual(code, 0, command);
    assert.match(stderr, why);
  }

  /** Of one left half rewound it is told, and nobody lets it run; who does so by force does no harm to the next rollback. */
  async function meddle(guest: Guest): Promise<void> {
    const { code, stderr } = await lab.exec(`dormouse unpause ${guest.name}`);
    assert.equal(code, 4, stderr);
    await lab.must(`xl unpause ${guest.name}`);
  }

  /** Kills a rollback at a random moment, half of the time once the domain is no more what it was. */
  async function kill(name: string, domid: number, point: string, dice: () => number): Promise<string> {
    const mark = `/run/dormouse/xen/${domid}.rewinding`;
    const late = dice() < 0.5;
    const delay = (dice() * (late ? 0.8 : 12)).toFixed(3);
    const wait = late ? `until [ -e ${mark} ] || ! kill -0 $pid; do :; done 2>/dev/null;` : '';
    await lab.must(
      `dormouse rollback ${name} ${point} --store ${store} --no-safety >/dev/null 2>&1 & pid=$!; ${wait} sleep ${delay}; kill -9 $pid; wait $pid; true`,
      { timeoutMs: 900_000 },
    );
    return `${late ? 'rewinding' : 'begin'} + ${delay} s`;
  }

  for (const [type, address] of [
    ['pvh', 111],
    ['pv', 112],
  ] as const)
    test(`${type}: to points of a protection, as often as one likes, xl none the wiser`, async (t) => {
      const dice = random(seed);
      t.diagnostic(`DORMOUSE_LAB_SEED=${seed}`);
      const guest = await Guest.create(lab, {
        ...{ name: `back-${type}`, type, vcpus: 2, address },
        // Processors that look at the clock all the time would not sleep by their own timers.
        clockUs: 1_000_000,
      });
      const { name } = guest;
      const asXlSawIt = await seenByXl(name);
      const domid = await guest.domid();
      await guest.mustProtect(`dormouse protect ${name} --store ${store} --every 1s --count ${pointsInARow}`);
      await guest.waitTicks(2);
      const listed = await pointsOf(name);
      const points = listed.map(({ point }) => point);
      assert.equal(points.length, pointsInARow);
      const any = (): string => points[Math.floor(dice() * points.length)] ?? '';
      for (let i = 0; i < rollbacks.times; i++) await goBack(t, guest, any());
      const { safetyPoint } = await goBack(t, guest, any(), '');
      assert.ok(safetyPoint);
      await guest.countOn();
      await goBack(t, guest, safetyPoint);
      for (let i = 0; i < rollbacks.kills; i++) {
        const moment = await kill(name, domid, any(), dice);
        const reason = (await dormouse(`domstate --reason ${name}`)).includes('rewinding');
        t.diagnostic(`${name} killed at ${moment}: ${reason ? 'half rewound' : 'as it was, or back'}`);
        if (reason) {
          if (dice() < 0.5) await meddle(guest);
          await goBack(t, guest, any());
        }
        await guest.waitTicks(2);
      }
      await lab.must(`xl pause ${name}`);
      await refused(`rollback ${name} ${any()} --store ${store}`, /it is paused[^]*--no-safety/);
      await lab.must(`xl unpause ${name}`);
      await guest.crash();
      await guest.waitState((state) => state?.[4] === 'c');
      await goBack(t, guest, any());
      assert.equal(await seenByXl(name), asXlSawIt);
      await besideXl(t, guest, listed);
      await lab.must(
        `xl save ${name} /images/${name}.xl && xl restore /images/${name}.xl && rm /images/${name}.xl`,
        { timeoutMs: 900_000 },
      );
      await guest.restoredOn(lab);
      await guest.waitTicks(3);
      await lab.must(`xl shutdown -w ${name}`, { timeoutMs: 200_000 });
    });

  test('a domain that is destroyed while it goes back leaves nothing behind', async () => {
    const guest = await Guest.create(lab, { name: 'gone', type: 'pvh', address: 113 });
    const domid = await guest.domid();
    await lab.must(`dormouse checkpoint gone --store ${store}`, { timeoutMs: 300_000 });
    await guest.waitTicks(2);
    const mark = `/run/dormouse/xen/${domid}.rewinding`;
    const { stdout } = await lab.exec(
      `dormouse rollback gone --store ${store} --no-safety >/images/gone.log 2>&1 & pid=$!; until [ -e ${mark} ] || ! kill -0 $pid; do :; done 2>/dev/null; xl destroy gone; wait $pid; echo code $?; cat /images/gone.log`,
      { timeoutMs: 300_000 },
    );
    assert.doesNotMatch(stdout, /^code 0$/m);
    const left = await lab.must(
      `ls ${mark} 2>/dev/null; xl list | grep -w gone; xenstore-ls -p /local/domain/${domid} 2>/dev/null; true`,
    );
    assert.equal(left.trim(), '', stdout);
  });
});

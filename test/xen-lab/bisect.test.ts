/** `bisect` of a real guest: which of its points was the first after something in it broke. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';

const store = '/images/bisect';
// The first point is whole and takes its time.
const breakAfterS = 180;

interface Points {
  readonly points: readonly { readonly point: string }[];
}
interface Found {
  readonly lastGood: string;
  readonly firstBad: string | null;
  readonly trials: readonly { readonly point: string; readonly verdict: string }[];
  readonly left: string;
}

/** Good if the guest ticks and does not say that it is broken. */
const judge = `#!/bin/sh
log=/var/log/xen/console/guest-$1.log
seen=$(wc -l <$log)
for i in $(seq 120); do
  sleep 0.5
  tail -n +$((seen + 2)) $log >/tmp/since
  if grep -q ^broken /tmp/since; then exit 1; fi
  if [ $(grep -c ^tick /tmp/since) -ge 2 ]; then exit 0; fi
done
exit 125
`;

describe('bisect on real Xen', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab({ cpus: 5 });
    await lab.must(`cat >/tmp/judge <<'EOF'\n${judge}EOF\nchmod +x /tmp/judge`);
  });
  after(() => lab.stop());

  const dormouse = (command: string): Promise<string> =>
    lab.must(`dormouse --json ${command}`, { timeoutMs: 900_000 });

  /** What it counts right after it went back there. */
  async function countAt(guest: Guest, point: string): Promise<number> {
    await dormouse(`rollback ${guest.name} ${point} --store ${store} --no-safety`);
    return (await guest.waitTicks(1)).at(-1)?.count ?? 0;
  }

  test('pvh: the second in which a guest was broken is found', async (t) => {
    const guest = await Guest.create(lab, {
      ...{ name: 'breaks', type: 'pvh', vcpus: 2, address: 114, breakAfterS, clockUs: 1_000_000 },
    });
    await lab.must(
      `dormouse protect breaks --store ${store} --every 1s </dev/null >/tmp/protect.log 2>&1 & echo $! >/tmp/protect.pid`,
    );
    await guest.waitCount(breakAfterS + 15);
    await lab.must(
      'pid=$(cat /tmp/protect.pid); kill -INT $pid; while kill -0 $pid 2>/dev/null; do sleep 0.2; done',
      {
        timeoutMs: 300_000,
      },
    );
    const { points } = JSON.parse(await dormouse(`points breaks --store ${store}`)) as Points;
    const ids = points.map(({ point }) => point);
    const ends = `--good ${ids[0] ?? ''} --bad ${ids.at(-1) ?? ''}`;
    await guest.waitTicks(3);
    const found = JSON.parse(
      await dormouse(`bisect breaks --store ${store} ${ends} --timeout 90s -- /tmp/judge breaks`),
    ) as Found;
    const { trials, lastGood, firstBad, left } = found;
    t.diagnostic(`${ids.length} points, ${trials.length} trials: ${lastGood} good, ${String(firstBad)} bad`);
    assert.equal(left, 'before');
    assert.equal(ids.indexOf(firstBad ?? ''), ids.indexOf(lastGood) + 1, 'the one after the last good one');
    assert.ok(trials.length <= 2 + Math.ceil(Math.log2(ids.length)), 'it halves');
    assert.ok(trials.every(({ verdict }) => verdict !== 'skip'));
    const seen = (await guest.waitTicks(2)).at(-1)?.count ?? 0;
    assert.ok(seen > breakAfterS, 'it goes on where it was');
    // The command sees three ticks at most.
    const [good, bad] = [await countAt(guest, lastGood), await countAt(guest, firstBad ?? '')];
    t.diagnostic(`broken at ${breakAfterS}; the last good one counts ${good}, the first bad one ${bad}`);
    assert.ok(good <= breakAfterS && bad >= breakAfterS - 3, `${good}, ${bad}`);
    await lab.must('xl shutdown -w breaks', { timeoutMs: 200_000 });
  });
});

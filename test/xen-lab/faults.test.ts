/** What goes wrong on real Xen: processes killed at random moments, disks that are full, a host that does not answer. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { kills } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';

const seed = Number(process.env.DORMOUSE_LAB_SEED ?? randomInt(2 ** 31));
const slow = { timeoutMs: 300_000 };

describe('faults on Xen', () => {
  let lab: Lab;
  let pv: Guest;
  let pvh: Guest;

  before(async () => {
    lab = await startLab();
    const small = { memoryMib: 96, loadMib: 8 };
    pv = await Guest.create(lab, { name: 'pv', type: 'pv', ...small });
    pvh = await Guest.create(lab, { name: 'pvh', type: 'pvh', ...small });
  });
  /** Nothing is left of whatever was tried, and both guests go on, clean. */
  afterEach(async () => {
    const noLease =
      'for i in $(seq 100); do [ -z "$(ls /run/dormouse/xen 2> /dev/null)" ] && exit; sleep 0.1; done; exit 1';
    await lab.must(noLease);
    const names = await lab.must("xl list | awk 'NR > 2 { print $1 }'");
    assert.deepEqual(names.trim().split('\n').sort(), ['pv', 'pvh']);
    for (const guest of [pv, pvh]) await guest.waitTicks(2);
    await lab.must('rm -f /images/*.img');
  });
  after(() => lab.stop());

  /** What a failing command says, from the last line of its standard error. */
  async function failure(
    command: string,
  ): Promise<{ code: number; name: string; guest: string; message: string }> {
    const { code, stdout, stderr } = await lab.exec(command, slow);
    const last = stderr.trim().split('\n').at(-1) ?? '';
    assert.ok(last.startsWith('{'), `${command}: ${code}\n${stdout}${stderr}`);
    const said = JSON.parse(last) as { name: string; guest: string; message: string };
    return { ...said, code };
  }

  test('a full disk: the guest goes on and no file is left', async () => {
    await lab.must('mkdir -p /images/small && mount -t tmpfs -o size=4m tmpfs /images/small');
    const full = async (command: string, guest: string, exitCode: number): Promise<void> => {
      const error = await failure(`dormouse --json ${command} ${guest} /images/small/full.img`);
      assert.deepEqual([error.name, error.code], ['NO_SPACE', exitCode], JSON.stringify(error));
      assert.equal(await lab.must('ls -A /images/small'), '');
    };
    await full('save', 'pv', 20);
    await full('save -c', 'pvh', 1);
    await full('checkpoint', 'pvh', 1);
    await lab.must('umount /images/small');
  });

  test('xenstored that does not answer for some seconds is waited for; for longer it is an error', async () => {
    const stop = 'kill -STOP $(pidof xenstored)';
    const goOn = 'kill -CONT $(pidof xenstored)';
    const later = `(sleep 8; ${goOn}) > /dev/null 2>&1 &`;
    const waited = await lab.exec(`${stop}; ${later} dormouse save -c pvh /images/slow.img`, slow);
    assert.equal(waited.code, 0, waited.stderr);
    const never = 'dormouse --json save pv /images/never.img';
    const error = await failure(`${stop}; ${never}; code=$?; ${goOn}; exit $code`);
    assert.deepEqual([error.name, error.code], ['HOST_UNAVAILABLE', 5]);
    assert.match(error.message, /xenstored does not answer/);
    assert.equal(await lab.must('ls /images | grep never || true'), '');
  });

  test('xenstored stops answering in the middle of a save: an error in time, and the guest goes on', async () => {
    const error = await failure(
      'dormouse --json save pv /images/gone.img & save=$!; ' +
        'for i in $(seq 600); do ls /run/dormouse/xen/*.lock > /dev/null 2>&1 && break; sleep 0.05; done; ' +
        'kill -STOP $(pidof xenstored); wait $save; code=$?; kill -CONT $(pidof xenstored); exit $code',
    );
    assert.deepEqual([error.name, error.code], ['HOST_UNAVAILABLE', 5], JSON.stringify(error));
    assert.equal(await lab.must('ls /images | grep gone || true'), '');
  });

  test('not as root: a typed error, nothing touched', async () => {
    const run = 'cd /; exec node /project/bin/dormouse --json save pv /tmp/nobody.img';
    await lab.must("grep -q nobody /etc/passwd || echo 'nobody::65534:65534::/:/bin/sh' >> /etc/passwd");
    const error = await failure(`su nobody -c '${run}'`);
    assert.deepEqual([error.name, error.code], ['HOST_UNAVAILABLE', 5]);
    assert.match(error.message, /run it as root/);
  });

  test(`kill -9 at ${kills} random moments of every operation (seed ${seed})`, async (t) => {
    const script = 'node /project/dist/lab/kill_checks.js';
    const out = await lab.must(`${script} ${kills} ${seed} pv pvh`, { timeoutMs: 120_000 + kills * 60_000 });
    const lines = out.trim().split('\n');
    for (const line of lines) t.diagnostic(line);
    assert.equal(lines.length, kills);
    const slowest = Math.max(...lines.map((line) => (JSON.parse(line) as { undoneInMs: number }).undoneInMs));
    t.diagnostic(`the slowest was undone in ${slowest} ms`);
  });
});

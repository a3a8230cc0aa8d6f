/** What an image may bring to real Xen, and what is found out before a domain is made. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { destroyGuests, Guest, guestConfig, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { lastTick } from './ticks.js';

const slow = { timeoutMs: 900_000 };
const checks = 'node /project/dist/lab/trust_checks.js';

describe('trust on Xen', () => {
  let lab: Lab;
  const must = (script: string): Promise<string> => lab.must(script, slow);
  const create = (options: GuestOptions): Promise<Guest> =>
    Guest.create(lab, { loadMib: 1, memoryMib: 96, ...options });
  const domains = async (): Promise<string> => (await must("xl list | awk 'NR > 2 { print $1 }'")).trim();

  before(async () => {
    lab = await startLab({ cpus: 5 });
    await must(
      `cat > /domu/counter.cfg <<'EOF'\n${guestConfig({ name: 'counter', type: 'pv', memoryMib: 96 }, lab)}EOF`,
    );
  });
  afterEach(async () => {
    await destroyGuests(lab);
    await lab.exec('rm -f /images/*.*');
  });
  after(() => lab.stop());

  /** What a failing command says, from the last line of its standard error. */
  async function failure(
    command: string,
    code: number,
  ): Promise<{ name: string; message: string; details: string[] }> {
    const ran = await lab.exec(`dormouse --json ${command}`, slow);
    assert.equal(ran.code, code, ran.stdout + ran.stderr);
    return JSON.parse(ran.stderr.trim().split('\n').at(-1) ?? '') as never;
  }

  /** Codes of what `image check` finds. */
  async function findings(file: string): Promise<{ code: string; message: string }[]> {
    const { stdout, stderr } = await lab.exec(`dormouse --json image check ${file}`, slow);
    assert.ok(stdout.startsWith('{'), stderr);
    return (JSON.parse(stdout) as { findings: { code: string; message: string }[] }).findings;
  }

  test('hostile configurations: nothing is started, nothing opened, no domain made', async (t) => {
    await create({ name: 'hostile', type: 'pv' });
    await must('dormouse save hostile /images/h.img');
    await must(
      'printf \'#!/bin/sh\\necho "$0 $*" >> /images/mark.sh.ran\\n\' > /images/mark.sh; chmod 755 /images/mark.sh',
    );
    await must('truncate -s 1M /images/bait.raw; touch -a -t 200001010000 /images/bait.raw');
    const out = await must(`${checks} hostile /images/h.img /images/mark.sh /images/bait.raw 2>&1`);
    const seen = JSON.parse(out.trim().split('\n').at(-1) ?? '') as {
      outcomes: [string, string][];
      made: number;
    };
    assert.ok(seen.outcomes.length >= 40);
    const restored = seen.outcomes.filter(([, code]) => code !== 'CONFIG_UNTRUSTED');
    assert.deepEqual(restored, [['two fields of one name', 'restored']]);
    // That one, without the disk whose script libxl would have run.
    assert.equal(seen.made, 1);
    assert.equal(await domains(), '');
    assert.notEqual((await lab.exec('ls /images/mark.sh.ran')).code, 0);
    assert.match(await must('stat -c %x /images/bait.raw'), /^2000-01-01/);
    t.diagnostic(`${seen.outcomes.length} configurations`);
  });

  test('AVX in the image, none on this host: refused with its name, before a domain is made', async () => {
    for (const type of ['pv', 'pvh'] as const) {
      await create({ name: type, type });
      await must(`dormouse save -c ${type} /images/${type}.img; xl destroy ${type}`);
      assert.deepEqual(await findings(`/images/${type}.img`), []);
      await must(`${checks} forge /images/${type}.img avx; xl destroy ${type} 2>/dev/null; true`);
      const error = await failure(`restore --trust-config /images/${type}.img`, 13);
      assert.deepEqual(
        [error.name, error.message],
        ['CPU_INCOMPATIBLE', 'the guest was shown what this host has not: avx'],
      );
      assert.deepEqual(
        (await findings(`/images/${type}.img`)).map(({ code }) => code),
        ['CONFIG_UNTRUSTED', 'CPU_INCOMPATIBLE'],
      );
      assert.equal(await domains(), '');
    }
  });

  test('a disk that another domain writes to is refused, by whatever path, until --force or its end', async () => {
    await create({ name: 'owner', type: 'pv', diskMib: 16 });
    await must('dormouse save -c owner /images/o.img');
    const [taken] = await findings('--name other /images/o.img').catch(() => []);
    assert.equal(taken?.code, 'DISK_IN_USE');
    await must(
      'ln -s /images/owner.disk /images/link.raw; printf \'name="x"\\ntype="pv"\\nkernel="/domu/vmlinux"\\nmemory=96\\ndisk=["/images/link.raw,raw,xvda,w"]\\n\' > /images/other.cfg',
    );
    const linked = await failure('restore --config /images/other.cfg --name other /images/o.img', 11);
    assert.match(
      linked.message,
      /^disk xvda: \/images\/link\.raw is xvda of domain \d+, which writes to it$/,
    );
    await must("sed -i 's#/images/link.raw#/dev/loop0#' /images/other.cfg");
    const device = await failure('restore --config /images/other.cfg --name other /images/o.img', 11);
    assert.match(device.message, /\/dev\/loop0 is xvda of domain/);
    assert.equal(await domains(), 'owner');
    const names = (await findings('--force --name other /images/o.img')).map(({ code }) => code);
    assert.deepEqual(names, []);
    await must('xl destroy owner; rm /images/owner.disk');
    assert.deepEqual(
      (await findings('/images/o.img')).map(({ code }) => code),
      ['HOST_LACKS'],
    );
    await must('truncate -s 16M /images/owner.disk');
    assert.deepEqual(await findings('/images/o.img'), []);
  });

  test('too little memory is said before a domain is made', async () => {
    await create({ name: 'big', type: 'pv' });
    await must('dormouse save big /images/b.img');
    // What the guest had comes back to Xen bit by bit, after the verb's end too.
    const freeMib = "$(xl info | awk '/^free_memory/ { print $3 }')";
    const settled = async (): Promise<number> =>
      Number(
        await must(
          `was=; now=${freeMib}; while [ "$was" != "$now" ]; do sleep 2; was=$now; now=${freeMib}; done; echo $now`,
        ),
      );
    // PVH, for large pages are quick to give. For a large one xl may take more of dom0's memory than it needs.
    let taken = 0;
    for (let free = await settled(); free >= 96; free = await settled()) {
      assert.ok(taken < 5, `${free} MiB are free still`);
      await must(
        `xl create -q -p /domu/counter.cfg "name='taker${++taken}'" "type='pvh'" "memory=${free - 64}" "maxmem=${free - 64}"`,
      );
    }
    assert.equal((await failure('restore /images/b.img', 5)).name, 'NO_MEMORY');
    assert.match(await domains(), /^taker1(\ntaker[2-5])*$/);
  });

  test('a guest that holds more than its target is restored, and then gives it back', async () => {
    const guest = await create({ name: 'web1', type: 'pv', memoryMib: 128 });
    const home = `/local/domain/${await guest.domid()}/memory`;
    const full = lastTick(await guest.ticks()).memKib;
    // The guest does not see that its target changed, as one that has not come to it yet.
    await must(`xenstore-chmod ${home}/target n0; xl mem-set web1 100`);
    await must('dormouse save web1 /images/w.img');
    await must('dormouse restore /images/w.img');
    const domid = await guest.domid();
    assert.equal(
      (await must(`xenstore-read /local/domain/${domid}/memory/target`)).trim(),
      String(100 * 1024),
    );
    let tick = lastTick(await guest.waitTicks(1, 300_000));
    while (tick.memKib > full - 26 * 1024) tick = lastTick(await guest.waitTicks(1));
    assert.ok(Number((await must("xl list web1 | awk 'NR == 2 { print $3 }'")).trim()) <= 101);
  });

  test('vCPUs 0 and 3 only, and no configuration of libxl: the restored guest has these', async () => {
    const guest = await create({ name: 'holes', type: 'pv', vcpus: 4 });
    const domid = await guest.domid();
    const cpu = (id: number): string =>
      `xenstore-write /local/domain/${domid}/cpu/${id}/availability offline`;
    await must(
      `${cpu(1)}; ${cpu(2)}; for i in $(seq 300); do [ $(xl vcpu-list holes | awk 'NR > 1 && $4 == "-" ' | grep -c -- --p) -ge 2 ] && exit 0; sleep 0.2; done; xl vcpu-list holes; exit 1`,
    );
    await must('dormouse save holes /images/v.img');
    await must(`${checks} forge /images/v.img no-config; dormouse restore /images/v.img`);
    assert.equal(
      (await must("xl vcpu-list holes | awk 'NR > 1 && $5 !~ /p/ { print $3 }'")).trim().split(/\s+/).join(),
      '0,3',
    );
    assert.equal(lastTick(await guest.waitTicks(2, 300_000)).cpus, 2);
  });
});

/** Points of real guests with their disks, by each way that this kernel has: gone back to, disk and memory agree. */
import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { pointsInARow, rollbacks } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { random } from './random.js';

const mount = '/images/xfs';
const group = 'lab';
const seed = Number(process.env.DORMOUSE_LAB_SEED ?? Math.floor(Math.random() * 2 ** 31));

interface Listed {
  readonly points: readonly {
    readonly point: string;
    readonly disks: string;
    readonly disksMs: number;
    readonly pauseMs: number;
    readonly keptDisks: readonly { readonly name: string; readonly path: string; readonly where: string }[];
  }[];
}
interface WentBack {
  readonly putPages: number;
  readonly pauseMs: number;
  readonly disks: readonly string[];
  readonly safetyPoint: string | null;
}

describe('points with disks on real Xen', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab({ cpus: 5, scratchGib: 12 });
    await lab.must(
      `truncate -s 3G /images/xfs.image && mkfs.xfs -q -m reflink=1 /images/xfs.image && mkdir -p ${mount} && ` +
        `mount -t xfs -o loop /images/xfs.image ${mount}`,
      { timeoutMs: 200_000 },
    );
  });
  after(() => lab.stop());

  const dormouse = (command: string): Promise<string> =>
    lab.must(`dormouse --json ${command}`, { timeoutMs: 900_000 });

  async function pointsOf(name: string, store: string): Promise<Listed['points']> {
    return (JSON.parse(await dormouse(`points ${name} --store ${store}`)) as Listed).points;
  }

  /** Takes it back and has it check itself: each block that it has written is as its memory says. */
  async function goBack(t: TestContext, guest: Guest, command: string): Promise<WentBack> {
    const seen = (await guest.ticks()).length;
    const done = JSON.parse(await dormouse(`rollback ${guest.name} ${command}`)) as WentBack;
    const how = `${done.putPages} pages, ${done.disks.join()}, paused ${Math.round(done.pauseMs)} ms`;
    t.diagnostic(`${guest.name} ${command}: ${how}`);
    assert.deepEqual(done.disks, ['xvda']);
    const last = (await guest.waitTicks(4)).at(-1);
    const counts = (await guest.ticks()).slice(Math.max(0, seen - 1)).map(({ count }) => count);
    assert.ok(
      counts.some((count, i) => i > 0 && count !== (counts[i - 1] ?? 0) + 1),
      `it counts on: ${counts.join()}`,
    );
    assert.deepEqual([last?.bad, last?.diskBad, last?.diskErrors, last?.netBad], [0, 0, 0, 0]);
    return done;
  }

  async function thereAndBack(t: TestContext, guest: Guest, store: string, way: string): Promise<void> {
    const { name } = guest;
    await guest.mustProtect(
      `dormouse protect ${name} --store ${store} --every 1s --count ${pointsInARow} --min-free 16M --disks ${way}`,
    );
    const points = await pointsOf(name, store);
    for (const { point, disks, disksMs, pauseMs, keptDisks } of points) {
      t.diagnostic(`${point}: ${disks} took ${disksMs.toFixed(1)} of ${pauseMs.toFixed(1)} ms`);
      assert.deepEqual([disks, keptDisks.map((disk) => disk.name)], [way, ['xvda']]);
    }
    assert.equal(points.length, pointsInARow);
    const dice = random(seed);
    t.diagnostic(`DORMOUSE_LAB_SEED=${seed}`);
    const any = (): string => points[Math.floor(dice() * points.length)]?.point ?? '';
    await guest.waitTicks(3);
    const asXlSawIt = await lab.must(`xl block-list ${name}`);
    for (let i = 0; i < rollbacks.times; i++) await goBack(t, guest, `${any()} --store ${store} --no-safety`);
    const { safetyPoint } = await goBack(t, guest, `${any()} --store ${store}`);
    await guest.countOn();
    await goBack(t, guest, `${safetyPoint ?? ''} --store ${store} --no-safety`);
    assert.equal(await lab.must(`xl block-list ${name}`), asXlSawIt);
    const verified = await dormouse(`point verify ${name} --store ${store}`);
    assert.deepEqual((JSON.parse(verified) as { findings: unknown[] }).findings, []);
    await dormouse(`prune ${name} --store ${store} --keep-last 1`);
  }

  for (const [type, address] of [
    ['pvh', 121],
    ['pv', 122],
  ] as const)
    test(`${type}: reflink, on XFS`, async (t) => {
      const name = `disk-${type}`;
      const guest = await Guest.create(lab, {
        ...{ name, type, vcpus: 2, diskMib: 64, diskPath: `${mount}/${name}.disk`, reads: true, address },
        // Looking at the clock all the time its processors interrupt each other, and no such instant can be gone back to.
        clockUs: 1_000_000,
      });
      await thereAndBack(t, guest, `${mount}/points`, 'reflink');
      const left = (await lab.must(`ls ${mount}/points/*/disks`)).trim().split('\n');
      assert.equal(left.length, 1, left.join());
      const { code, stderr } = await lab.exec(
        `dormouse checkpoint ${name} --store /images/elsewhere --disks reflink`,
      );
      assert.equal(code, 5, stderr);
      const saved = `/images/${name}.xl`;
      await lab.must(`xl save ${name} ${saved} && xl restore ${saved} && rm ${saved}`, {
        timeoutMs: 900_000,
      });
      await guest.restoredOn(lab);
      const last = (await guest.waitTicks(3)).at(-1);
      assert.deepEqual([last?.bad, last?.diskBad, last?.diskErrors], [0, 0, 0]);
      await lab.must(`xl shutdown -w ${name}`, { timeoutMs: 200_000 });
    });

  test('pvh: thin volumes of LVM', async (t) => {
    await lab.must(
      'truncate -s 2G /images/lvm.image && device=$(losetup -f) && losetup $device /images/lvm.image && ' +
        `vgcreate -qq ${group} $device && lvcreate -qq --type thin-pool -Zn -L 1500M --poolmetadatasize 4M -n pool ${group} && ` +
        `lvcreate -qq --thin -V 64M -n guest ${group}/pool`,
      { timeoutMs: 200_000 },
    );
    const guest = await Guest.create(lab, {
      ...{ name: 'disk-lvm', type: 'pvh', vcpus: 1, diskMib: 64, diskPath: `/dev/${group}/guest` },
    });
    await thereAndBack(t, guest, '/images/lvm-points', 'lvm-thin');
    const [kept] = (await pointsOf('disk-lvm', '/images/lvm-points'))[0]?.keptDisks ?? [];
    assert.equal(kept?.path, `/dev/mapper/${group}-guest`);
    const volumes = await lab.must(`lvs --noheadings -o lv_name ${group}`);
    assert.equal(volumes.match(/dormouse-/gu)?.length, 1, volumes);
    await lab.must('xl shutdown -w disk-lvm', { timeoutMs: 200_000 });
  });
});

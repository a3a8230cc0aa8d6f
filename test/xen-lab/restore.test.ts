/** Restore on real Xen, with guests that check themselves. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { watchedTicks } from './extent.js';
import { Guest, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { lastTick } from './ticks.js';

const kinds: GuestOptions[] = [
  { name: 'pvh', type: 'pvh', vcpus: 2, loadMib: 4, diskMib: 16, address: 102 },
  { name: 'pv2', type: 'pv', vcpus: 2, loadMib: 4, diskMib: 16, address: 101 },
  { name: 'pv1', type: 'pv', vcpus: 1, loadMib: 16, dirtyMibPerS: 8 },
];
const slow = { timeoutMs: 600_000 };

describe('restore on Xen', () => {
  let lab: Lab;
  const guests: Guest[] = [];
  const create = async (options: GuestOptions): Promise<Guest> => {
    const guest = await Guest.create(lab, options);
    guests.push(guest);
    return guest;
  };
  const must = (script: string): Promise<string> => lab.must(script, slow);
  const domains = async (): Promise<string[]> =>
    (await must("xl list | awk 'NR > 2 { print $1 }'")).split('\n').filter((name) => name !== '');

  before(async () => {
    lab = await startLab();
  });
  afterEach(async () => {
    for (const guest of guests.splice(0)) await guest.destroy();
    await lab.exec('rm -f /images/*.img /images/*.xl');
  });
  after(() => lab.stop());

  /** All of its memory is checked once more, and where it has them its disk and its network go on. */
  async function goesOn(guest: Guest, { diskMib, address }: GuestOptions): Promise<void> {
    const start = lastTick(await guest.waitTicks(2));
    let tick = lastTick(await guest.waitTicks(watchedTicks));
    const behind = (): boolean =>
      tick.rounds < start.rounds + 2 ||
      (diskMib !== undefined && tick.diskOps < start.diskOps + 10) ||
      (address !== undefined && tick.netReceived < start.netReceived + 20);
    while (behind()) tick = lastTick(await guest.waitTicks(1));
    assert.equal(tick.bad + tick.diskBad + tick.diskErrors + tick.netBad, 0);
    assert.equal(tick.cpus, start.cpus);
  }

  for (const kind of kinds) {
    const { name } = kind;
    test(`${name}: save and restore; an image of ours for xl; a file of xl's for us`, async () => {
      const guest = await create(kind);
      await must(`dormouse save ${name} /images/a.img`);
      assert.deepEqual(await domains(), []);
      await must('dormouse restore /images/a.img');
      await goesOn(guest, kind);

      await must(`dormouse save ${name} /images/b.img && dormouse image convert /images/b.img /images/b.xl`);
      await must('xl restore /images/b.xl');
      await goesOn(guest, kind);

      await must(`xl save ${name} /images/c.xl && dormouse image convert /images/c.xl /images/c.img`);
      await must('dormouse restore --trust-config /images/c.img');
      await goesOn(guest, kind);
    });
  }

  test('-p leaves it paused, --name renames it, a taken name is refused before anything is made', async () => {
    const guest = await create({ name: 'still', type: 'pv', loadMib: 4 });
    await must('dormouse save -c still /images/a.img');
    const taken = await lab.exec('dormouse --json restore /images/a.img', slow);
    assert.equal(taken.code, 4, taken.stdout + taken.stderr);
    assert.match(taken.stdout + taken.stderr, /DOMAIN_EXISTS/);
    assert.deepEqual(await domains(), ['still']);
    await must('dormouse restore -p --name other /images/a.img');
    assert.equal((await must("xl list other | awk 'NR == 2 { print $5 }'")).trim(), '--p---');
    await must('xl destroy other');
    await guest.waitTicks(2);
  });

  test('a restore that fails leaves no domain and keeps the image', async () => {
    const guest = await create({ name: 'frail', type: 'pv', loadMib: 4 });
    await must('dormouse save frail /images/a.img');
    const fails = async (what: string, script: string, code: RegExp): Promise<void> => {
      const result = await lab.exec(script, slow);
      assert.ok(result.code !== 0 && result.code !== 99, `${what}: ${result.code}`);
      assert.match(result.stdout + result.stderr, code, what);
      assert.deepEqual(await domains(), [], what);
    };
    await fails(
      'damaged image',
      'cp /images/a.img /images/d.img; printf x | dd of=/images/d.img bs=1 seek=1000000 conv=notrunc 2>/dev/null; dormouse --json restore /images/d.img',
      /IMAGE_DAMAGED/,
    );
    await fails(
      'too little memory',
      // What is free but 96 MiB goes to a domain that never runs; PVH, for large pages are quick to give.
      `free=$(xl info | awk '/^free_memory/ { print $3 }'); xl create -q -p /domu/frail.cfg "name='hog'" "type='pvh'" "memory=$((free - 96))" "maxmem=$((free - 96))"; dormouse --json restore /images/a.img; code=$?; xl destroy hog; exit $code`,
      /NO_MEMORY|RESTORE_FAILED/,
    );
    // Waits until the helper is at work.
    const started =
      'dormouse --json restore /images/a.img & restore=$!; helper=; ' +
      'for i in $(seq 600); do for p in /proc/[0-9]*; do ' +
      'tr "\\0" " " 2>/dev/null < $p/cmdline | grep -q "[s]ave-helper --restore-domain" && helper=${p#/proc/}; done; ' +
      '[ -z "$helper" ] || break; sleep 0.1; done; [ -n "$helper" ] || exit 99; ';
    await fails('killed helper', started + 'kill -9 $helper; wait $restore', /RESTORE_FAILED/);
    await fails('cancelled', started + 'kill -TERM $restore; wait $restore', /CANCELLED/);
    await must(
      started +
        'kill -9 $restore; i=0; while [ $i -lt 60 ] && xl domid frail; do sleep 1; i=$((i + 1)); done',
    );
    assert.deepEqual(await domains(), [], 'killed restore');
    await must('dormouse restore /images/a.img');
    await goesOn(guest, { name: 'frail', type: 'pv' });
  });
});

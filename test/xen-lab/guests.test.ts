import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Guest, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { lastTick, type Tick } from './ticks.js';

describe('guests of the lab', () => {
  let lab: Lab;
  const guests: Guest[] = [];
  const create = async (options: GuestOptions): Promise<Guest> => {
    const guest = await Guest.create(lab, options);
    guests.push(guest);
    return guest;
  };
  before(async () => {
    lab = await startLab();
  });
  afterEach(async () => {
    for (const guest of guests.splice(0)) await guest.destroy();
  });
  after(() => lab.stop());

  /** The load rewrites all of its memory at least once more, and finds what it expects. */
  async function clean(guest: Guest): Promise<Tick> {
    const before = lastTick(await guest.ticks());
    let tick = before;
    while (tick.rounds < before.rounds + 2) tick = lastTick(await guest.waitTicks(1));
    assert.equal(tick.bad + tick.diskBad + tick.diskErrors + tick.netBad, 0);
    assert.ok(tick.pagesWritten > before.pagesWritten);
    return tick;
  }

  for (const [type, vcpus] of [
    ['pv', 1],
    ['pv', 2],
    ['pvh', 1],
  ] as const)
    test(`${type} with ${vcpus} vCPU: memory, disk and network are clean through xl save and xl restore`, async () => {
      const guest = await create({
        name: `${type}${vcpus}`,
        type,
        vcpus,
        loadMib: 1,
        diskMib: 16,
        address: 101,
      });
      const before = await clean(guest);
      assert.deepEqual([before.cpus, before.disk, before.net], [vcpus, 1, 1]);
      assert.ok(before.netReceived > 0);
      await lab.must(`xl save ${guest.name} /images/saved`, { timeoutMs: 300_000 });
      assert.equal(await guest.state(), undefined);
      await lab.must('xl restore /images/saved', { timeoutMs: 300_000 });
      const resumed = lastTick(await guest.waitTicks(1));
      let tick = await clean(guest);
      // Frontends take their time to come back; what is sent meanwhile is lost.
      while (tick.netReceived < resumed.netReceived + 20 || tick.diskOps < resumed.diskOps + 10)
        tick = lastTick(await guest.waitTicks(1));
      const settled = await clean(guest);
      assert.ok(settled.netReceived > tick.netReceived && settled.diskOps > tick.diskOps);
    });

  test('a guest measures by CLOCK_BOOTTIME how long it stood still', async () => {
    const guest = await create({ name: 'still', type: 'pv', loadMib: 1 });
    const before = (await guest.ticks()).length;
    await lab.must('xl pause still; sleep 6; xl unpause still');
    await guest.waitTicks(2);
    const gap = Math.max(...(await guest.ticks()).slice(before).map((tick) => tick.gapBootUs));
    assert.ok(gap > 5_000_000, `${gap} us of a pause of 6 s`);
  });

  test('one crashes when told to, and stays for a look', async () => {
    const guest = await create({ name: 'crasher', type: 'pv', loadMib: 1 });
    await guest.crash();
    await guest.waitState((state) => state?.[4] === 'c');
    assert.match(await guest.console(), /sysrq triggered crash/);
  });

  test('one crashes by itself', async () => {
    const guest = await create({ name: 'doomed', type: 'pvh', loadMib: 1, crashAfterS: 3 });
    await guest.waitState((state) => state?.[4] === 'c');
    assert.match(await guest.console(), /crash asked for/);
  });

  test('one balloons down and up again', async () => {
    const guest = await create({
      name: 'balloon',
      type: 'pv',
      memoryMib: 128,
      maxMemoryMib: 192,
      loadMib: 1,
    });
    const small = lastTick(await guest.ticks()).memKib;
    await lab.must('xl mem-set balloon 176');
    let tick = lastTick(await guest.ticks());
    for (let tries = 0; tick.memKib < small + 40 * 1024 && tries < 60; ++tries)
      tick = lastTick(await guest.waitTicks(1));
    assert.ok(tick.memKib >= small + 40 * 1024, `${small} KiB, then ${tick.memKib} KiB`);
    await lab.must('xl mem-set balloon 128');
    for (let tries = 0; tick.memKib > small + 8 * 1024 && tries < 60; ++tries)
      tick = lastTick(await guest.waitTicks(1));
    assert.ok(tick.memKib <= small + 8 * 1024, `${small} KiB, then ${tick.memKib} KiB`);
    await clean(guest);
  });

  test('a deaf one never takes a suspend request, and runs on', async () => {
    const guest = await create({ name: 'deaf', type: 'pv', loadMib: 1, deaf: true });
    const node = `/local/domain/${await guest.domid()}/control/shutdown`;
    await lab.must(`xenstore-write ${node} suspend`);
    await guest.waitTicks(5);
    assert.equal((await lab.must(`xenstore-read ${node}`)).trim(), 'suspend');
    assert.match((await guest.state()) ?? 'gone', /^[r-][b-]----$/);
    await lab.must(`xenstore-write ${node} ""`);
    await clean(guest);
  });
});

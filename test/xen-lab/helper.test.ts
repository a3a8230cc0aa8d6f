/** xl's own save and restore with our save helper, with guests that check themselves. Migration: peers.test.ts. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { watchedTicks } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { lastTick } from './ticks.js';

const ours = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper';
const oursStock = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper-stock';
const slow = { timeoutMs: 600_000 };

/** What a helper says besides details, and of its progress all: numbers cut away, each kind of line once. */
function kinds(stderr: string): string[] {
  const lines = stderr.split('\n').filter((line) => /^xc: (info|progress):|: \d+\/\d+ +\d+%$/.test(line));
  const kind = (line: string): string =>
    line
      .replace(/^xc: (detail|progress): /, '')
      .replace(/from (Xen|dormouse) [\d.]+/, 'from SENDER')
      .replace(/0x[0-9a-f]+|\d+/g, 'N')
      .replace(/ +/g, ' ');
  return [...new Set(lines.map(kind))];
}

describe('xl on our save helper', () => {
  let lab: Lab;
  const guests: Guest[] = [];

  before(async () => {
    lab = await startLab();
  });
  afterEach(async () => {
    for (const guest of guests.splice(0)) await guest.destroy();
    await lab.exec('rm -f /images/*');
  });
  after(() => lab.stop());

  /** Standard error of a script that must succeed. */
  async function said(script: string): Promise<string> {
    const { code, stderr } = await lab.exec(script, slow);
    assert.equal(code, 0, `${script}: ${stderr}`);
    return stderr;
  }

  const domains = async (): Promise<string[]> =>
    (await lab.must("xl list | awk 'NR > 2 { print $1 }'")).split('\n').filter((name) => name !== '');

  /** All of its memory is checked once more, and its network goes on. */
  async function goesOn(guest: Guest): Promise<void> {
    const start = lastTick(await guest.waitTicks(2));
    let tick = lastTick(await guest.waitTicks(watchedTicks));
    while (tick.rounds < start.rounds + 2 || tick.netReceived < start.netReceived + 20)
      tick = lastTick(await guest.waitTicks(1));
    assert.equal(tick.bad + tick.netBad, 0);
    assert.equal(tick.cpus, start.cpus);
  }

  for (const type of ['pvh', 'pv'] as const) {
    const options = { name: type, type, vcpus: 2, loadMib: 4, address: type === 'pv' ? 101 : 102 };

    test(`${type}: save, save -c and restore, also with xl's own helper at one end`, async (t) => {
      const guest = await Guest.create(lab, options);
      guests.push(guest);
      await said(`${ours} xl save -c ${type} /images/kept.xl`);
      await goesOn(guest);

      const saved = kinds(await said(`${ours} xl -v save ${type} /images/a.xl`));
      assert.deepEqual(await domains(), []);
      const restored = kinds(await said(`${ours} xl -v restore /images/a.xl`));
      await goesOn(guest);

      await said(`${oursStock} xl save ${type} /images/b.xl`);
      const stockRestored = kinds(await said('xl -v restore /images/b.xl'));
      await goesOn(guest);

      const stockSaved = kinds(await said(`xl -v save ${type} /images/c.xl`));
      await said(`${ours} xl restore /images/c.xl`);
      await goesOn(guest);

      t.diagnostic(`stock: ${JSON.stringify([stockSaved, stockRestored])}`);
      t.diagnostic(`ours: ${JSON.stringify([saved, restored])}`);
      assert.deepEqual(saved, stockSaved);
      // Xen's own says nothing of how far a restore is.
      assert.deepEqual(
        restored.filter((line) => !line.startsWith('Frames')),
        stockRestored,
      );
      const bytes = await lab.must("for f in a b c; do stat -c %s /images/$f.xl; done | tr '\\n' ' '");
      t.diagnostic(`bytes of ours, ours in stock format, stock: ${bytes}`);
      const [own = 1, stock = 0] = bytes.trim().split(' ').map(Number);
      assert.ok(own < stock / 2, `${own} bytes of ours, ${stock} of stock`);
    });
  }
});

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { receiveOnce, sendThrough } from './migrate.js';

const ours = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper';
/** Self-check after a migration, in ticks of a second. */
const watchedTicks = 30;

describe('two hosts on one wire', () => {
  let lab: Lab;
  let peer: Lab;
  before(async () => {
    lab = await startLab({ peers: 1, memoryMib: 2048, dom0Mib: 768 });
    const [other] = lab.peers;
    assert.ok(other);
    peer = other;
  });
  after(() => lab.stop());

  test('reach each other', async () => {
    assert.deepEqual([lab.ip, peer.ip], ['10.9.0.1', '10.9.0.2']);
    assert.equal((await lab.must('hostname')) + (await peer.must('hostname')), 'lab1\nlab2\n');
    assert.match(await lab.must(`ping -c 3 ${peer.ip}`), /3 packets received/);
    assert.match(await peer.must(`ping -c 3 ${lab.ip}`), /3 packets received/);
  });

  test('send each other a stream', async () => {
    const sum = await lab.must(
      'dd if=/dev/urandom of=/images/blob bs=1M count=8 2>/dev/null; sha256sum < /images/blob',
    );
    const receive =
      "require('net').createServer((s) => s.pipe(require('fs').createWriteStream('/images/blob')).on('close', " +
      '() => process.exit())).listen(7100)';
    const send = `require('fs').createReadStream('/images/blob').pipe(require('net').connect(7100, '${peer.ip}'))`;
    const received = peer.must(`node -e "${receive}"; sha256sum < /images/blob`, { timeoutMs: 120_000 });
    const listening = 'netstat -ltn | grep -q :7100';
    await peer.must(`for i in $(seq 60); do ${listening} && exit; sleep 0.5; done; exit 1`);
    await lab.must(`node -e "${send}"`, { timeoutMs: 120_000 });
    assert.equal(await received, sum);
  });

  for (const type of ['pvh', 'pv'] as const)
    test(`${type}: xl migrate on our save helper takes it over while it runs`, async (t) => {
      const options = { name: type, type, loadMib: 4, address: type === 'pv' ? 121 : 122 };
      const guest = await Guest.create(lab, options);
      const before = (await guest.ticks()).length;
      const { ended } = await receiveOnce(peer, ours);
      const startedMs = performance.now();
      await lab.must(`${ours} ${sendThrough(peer, type)}`, { timeoutMs: 600_000 });
      await ended;
      const elapsedMs = Math.round(performance.now() - startedMs);
      assert.notEqual((await lab.exec(`xl domid ${type}`)).code, 0, 'it is gone where it was');
      await guest.migrated(peer);
      const ticks = await guest.waitTicks(watchedTicks, 600_000);
      const since = (await guest.ticks()).slice(before);
      const stoodMs = Math.round(Math.max(...since.map(({ gapBootUs }) => gapBootUs)) / 1000);
      t.diagnostic(`${type}: ${elapsedMs} ms, of which it stood still at most ${stoodMs} ms`);
      const [first, last] = [ticks[0], ticks.at(-1)];
      assert.ok(first && last && last.rounds > first.rounds && last.netReceived > first.netReceived);
      assert.equal(last.bad + last.netBad, 0);
      await guest.destroy();
    });

  test("a guest's datagrams reach the other host", async () => {
    const guest = await Guest.create(lab, { name: 'far', type: 'pv', loadMib: 1, address: 120, echo: peer });
    const ticks = await guest.waitTicks(5);
    assert.ok((ticks.at(-1)?.netReceived ?? 0) > (ticks[0]?.netReceived ?? 0));
    await guest.destroy();
  });
});

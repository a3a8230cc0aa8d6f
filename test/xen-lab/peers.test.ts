import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { watchedTicks } from './extent.js';
import { Guest } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { receiveOnce, sendThrough } from './migrate.js';

const slow = { timeoutMs: 600_000 };
const ours = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper';

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

  /** Sends a file over the wire; it gets the same path. */
  async function carry(path: string): Promise<void> {
    const write = `s.pipe(require('fs').createWriteStream('${path}')).on('close', () => process.exit())`;
    const taken = peer.must(`node -e "require('net').createServer((s) => ${write}).listen(7100)"`, slow);
    const listening = 'netstat -ltn | grep -q :7100';
    await peer.must(`for i in $(seq 60); do ${listening} && exit; sleep 0.5; done; exit 1`);
    const read = `require('fs').createReadStream('${path}')`;
    await lab.must(`node -e "${read}.pipe(require('net').connect(7100, '${peer.ip}'))"`, slow);
    await taken;
  }

  test('send each other a stream', async () => {
    await lab.must('dd if=/dev/urandom of=/images/blob bs=1M count=8 2>/dev/null');
    await carry('/images/blob');
    const sum = 'sha256sum < /images/blob';
    assert.equal(await lab.must(sum), await peer.must(sum));
  });

  for (const type of ['pvh', 'pv'] as const)
    test(`${type}: xl migrate on our save helper takes it over while it runs`, async (t) => {
      const options = { name: type, type, loadMib: 4, address: type === 'pv' ? 121 : 122 };
      const guest = await Guest.create(lab, options);
      const before = (await guest.ticks()).length;
      const { ended } = await receiveOnce(peer, ours);
      const startedMs = performance.now();
      const sent = await lab.exec(`${ours} ${sendThrough(peer, type, '-v')}`, slow);
      assert.equal(sent.code, 0, sent.stderr);
      assert.match(sent.stderr, /xc: detail: fd \d+, dom \d+, live 1,/);
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

  const domains = async (host: Lab): Promise<string> =>
    (await host.must("xl list | awk 'NR > 2 { print $1 }'")).trim();

  /** A script that kills our helper of that kind once it is at work. */
  const killHelper = (kind: 'save' | 'restore'): string =>
    'for i in $(seq 600); do for p in /proc/[0-9]*; do ' +
    `tr "\\0" " " 2>/dev/null < $p/cmdline | grep -q "[s]ave-helper --${kind}-domain" && helper=\${p#/proc/}; done; ` +
    '[ -n "$helper" ] && sleep 2 && kill -9 $helper && exit 0; sleep 0.1; done; exit 1';

  for (const [end, kind] of [
    ['sender', 'save'],
    ['receiver', 'restore'],
  ] as const)
    test(`a migration whose ${end}'s helper is killed leaves the guest running where it was`, async () => {
      const guest = await Guest.create(lab, { name: 'stays', type: 'pv', loadMib: 4, dirtyMibPerS: 8 });
      const { ended } = await receiveOnce(peer, ours);
      const sent = lab.exec(`${ours} ${sendThrough(peer, 'stays')}`, slow);
      await (end === 'sender' ? lab : peer).must(killHelper(kind), slow);
      assert.notEqual((await sent).code, 0);
      await assert.rejects(ended, /migrate-receive ended with/);
      assert.deepEqual([await domains(lab), await domains(peer)], ['stays', '']);
      const [first] = await guest.waitTicks(1);
      while (((await guest.waitTicks(1)).at(-1)?.rounds ?? 0) < (first?.rounds ?? 0) + 2);
      assert.equal(await lab.must('ls /run/dormouse/xen'), '');
      await guest.destroy();
    });

  test('an image of ours is restored on the other host', async () => {
    const guest = await Guest.create(lab, { name: 'carried', type: 'pv', loadMib: 4, address: 123 });
    await lab.must('dormouse save carried /images/c.img', slow);
    await carry('/images/c.img');
    await peer.must('dormouse image verify /images/c.img');
    const refused = await peer.exec('dormouse restore /images/c.img', slow);
    assert.deepEqual([refused.code, /b_info\.kernel = /.test(refused.stderr)], [13, true], refused.stderr);
    await peer.must(`dormouse key trust '${(await lab.must('dormouse key show')).trim()}'`);
    await peer.must('dormouse restore /images/c.img', slow);
    await guest.restoredOn(peer);
    const ticks = await guest.waitTicks(watchedTicks, 600_000);
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

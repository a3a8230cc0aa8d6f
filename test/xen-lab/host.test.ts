import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LabError } from './errors.js';
import { startLab, type Lab } from './lab.js';

describe('a host of the lab', () => {
  let lab: Lab;
  before(async () => {
    lab = await startLab();
  });
  after(() => lab.stop());

  test('is Xen 4.17 with a working xl', async () => {
    const info = await lab.must('xl info');
    assert.match(info, /^xen_version +: 4\.17\./m);
    assert.match(info, /^virt_caps +: pv hvm hap/m);
    assert.match(await lab.must('xl list'), /^Domain-0 +0 +1024 +1 +r-----/m);
  });

  test('has the project, with its addon, and a disk for images', async () => {
    const load =
      "process.dlopen({exports:{}}, '/project/build/Release/dormouse.node'); console.log('loaded')";
    assert.equal(await lab.must(`node -e "${load}"`), 'loaded\n');
    assert.match(await lab.must('dormouse version'), /^dormouse \d/);
    const [free] = (await lab.must("df -m /images | awk 'NR == 2 { print $4 }'")).split('\n');
    assert.ok(Number(free) > 5500, `${String(free)} MiB free on /images`);
  });

  test('runs scripts side by side, and says how each ended', async () => {
    const start = Date.now();
    const results = await Promise.all([
      lab.exec('sleep 4; echo one'),
      lab.exec('sleep 4; echo two >&2; exit 7'),
      lab.exec('sleep 4; kill -TERM $$'),
    ]);
    assert.deepEqual(
      results.map(({ code, stdout, stderr }) => [code, stdout, stderr]),
      [
        [0, 'one\n', ''],
        [7, '', 'two\n'],
        [143, '', ''],
      ],
    );
    assert.ok(Date.now() - start < 11_000, 'they ran one after the other');
  });

  test('gives each of many disks that are plugged at once a loop device of its own', async () => {
    const script = `
      plug() { XENBUS_PATH=/plug/$1 /etc/xen/scripts/block add; }
      for i in 1 2 3 4 5 6; do truncate -s 1M /images/disk$i; xenstore-write /plug/$i/params /images/disk$i; done
      for i in 1 2 3 4 5 6; do plug $i & done 2>/dev/null; wait
      for i in 1 2 3 4 5 6; do echo $(xenstore-read /plug/$i/hotplug-status) $(xenstore-read /plug/$i/node); done
      cat /sys/block/loop*/loop/backing_file | grep -c /images/disk
      for i in 1 2 3 4 5 6; do XENBUS_PATH=/plug/$i /etc/xen/scripts/block remove; done
      cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c /images/disk`;
    for (let round = 0; round < 5; round++) {
      const lines = (await lab.exec(script)).stdout.trim().split('\n');
      const nodes = lines.slice(0, 6).map((line) => /^connected (\/dev\/loop\d+)$/.exec(line)?.[1]);
      assert.equal(new Set(nodes).size, 6, lines.join('\n'));
      assert.ok(!nodes.includes(undefined), lines.join('\n'));
      assert.deepEqual(lines.slice(6), ['6', '0']);
    }
  });

  test('gives a script no input of its own: what reads it does not take the rest of the script', async () => {
    const { stdout } = await lab.exec('cat; read line; node -e "process.stdin.resume()"\necho after');
    assert.equal(stdout, 'after\n');
  });

  test('kills a script that takes too long, with what it started', async () => {
    await assert.rejects(lab.exec('echo begun; sleep 4321 & sleep 4321', { timeoutMs: 1500 }), (error) => {
      assert.ok(error instanceof LabError);
      return error.message.includes('killed after 1500 ms') && error.message.includes('begun');
    });
    assert.equal((await lab.exec('ps | grep "sleep 432[1]"')).code, 1);
  });

  test('takes and gives files as they are', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'dormouse-put-'));
    try {
      const content = randomBytes(5_000_001);
      writeFileSync(join(dir, 'out'), content, { mode: 0o750 });
      await lab.put(join(dir, 'out'), '/images/file');
      const [sum, mode] = (await lab.must('sha256sum /images/file; stat -c %a /images/file')).split('\n');
      assert.equal(sum?.slice(0, 64), createHash('sha256').update(content).digest('hex'));
      assert.equal(mode, '750');
      await lab.get('/images/file', join(dir, 'back'));
      assert.ok(readFileSync(join(dir, 'back')).equals(content));
      await assert.rejects(lab.get('/no/such', join(dir, 'none')), LabError);
      await assert.rejects(lab.put(join(dir, 'out'), '/no/such/folder/file'), LabError);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

/** What Xen's tools and ours must agree on: which guests are not saved, and what an image says of a guest's devices. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { destroyGuests, Guest, guestConfig, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';

const slow = { timeoutMs: 600_000 };
const checks = 'node /project/dist/lab/host_checks.js';
const ours = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper';
/** Long enough for a process under emulation; the 30 s for which libxl is waited for are in it. */
const lockedMs = 120_000;

/**
 * In the place of QEMU, which dom0 does not have: it says that it runs, and "saves" when it is told to. The domain has never
 * run, so there is nothing else to do.
 */
const deviceModel = `#!/bin/sh
node=/local/domain/0/device-model/$2
xenstore-write $node/state running
while sleep 0.2; do
  log=$(xenstore-read $node/logdirty/cmd 2> /dev/null) && [ -n "$log" ] && xenstore-write $node/logdirty/ret $log
  case "$(xenstore-read $node/command 2> /dev/null)" in
    save) echo state > /var/lib/xen/qemu-save.$2; xenstore-rm $node/command; xenstore-write $node/state paused ;;
    continue) xenstore-rm $node/command; xenstore-write $node/state running ;;
  esac
done
`;
const hvmConfig = `name = "hvm"
type = "hvm"
memory = 32
vcpus = 1
device_model_version = "qemu-xen-traditional"
device_model_override = "/tmp/device-model"
nographic = 1
`;

interface LibxlConfig {
  readonly c_info: Record<string, unknown>;
  readonly b_info: { readonly avail_vcpus: number[]; readonly target_memkb: number };
  readonly disks?: { readonly vdev: string }[];
  readonly nics?: { readonly mac: string }[];
}

/** The configuration in the header of an xl file. */
function headerConfig(file: Buffer): LibxlConfig {
  const length = file.readUInt32LE(48);
  return JSON.parse(file.toString('utf8', 52, 52 + length).replace(/\0+$/, '')) as LibxlConfig;
}

describe('rules of Xen', () => {
  let lab: Lab;
  const must = (script: string): Promise<string> => lab.must(script, slow);

  before(async () => {
    lab = await startLab();
    await must(`cat > /tmp/device-model <<'EOF'\n${deviceModel}EOF`);
    await must(`chmod +x /tmp/device-model; cat > /domu/hvm.cfg <<'EOF'\n${hvmConfig}EOF`);
  });
  afterEach(async () => {
    await lab.exec('kill $(cat /tmp/lock.pid) 2> /dev/null; rm -f /tmp/lock.pid');
    await destroyGuests(lab);
    await lab.exec('rm -f /images/*.*');
  });
  after(() => lab.stop());

  async function failing(
    command: string,
    ...wanted: [code: number, name: string, guest: string]
  ): Promise<string> {
    const { code, stdout, stderr } = await lab.exec(command, slow);
    const last = stderr.trim().split('\n').at(-1) ?? '';
    assert.ok(last.startsWith('{'), `${command}: ${code}\n${stdout}${stderr}`);
    const said = JSON.parse(last) as { name: string; guest: string; message: string };
    assert.deepEqual([code, said.name, said.guest], wanted, said.message);
    return said.message;
  }
  const stateOf = async (name: string): Promise<string> =>
    (await must(`xl list ${name} | awk 'NR == 2 { print $5 }'`)).trim();
  const files = async (): Promise<string> =>
    (await must('ls -A /images | grep -v -e lost -e disk; true')).trim();

  test('an HVM guest is refused by our verbs and by our helper, and is as it was', async () => {
    await must('xl create -q -p /domu/hvm.cfg');
    const { domains } = JSON.parse(await must('dormouse --json list hvm')) as { domains: { type: string }[] };
    assert.equal(domains[0]?.type, 'hvm');
    for (const verb of ['save', 'save -c', 'save -p', 'checkpoint', 'checkpoint --mode cooperative']) {
      const message = await failing(
        `dormouse --json ${verb} hvm /images/h.img`,
        5,
        'HOST_LACKS',
        'untouched',
      );
      assert.match(message, /HVM guest.*`xl save`/, verb);
    }
    const { code, stderr } = await lab.exec(`${ours} xl save hvm /images/h.xl`, slow);
    assert.notEqual(code, 0);
    assert.match(stderr, /HVM guest.*`xl save`.*LIBXL_SAVE_HELPER not set/);
    assert.equal(await stateOf('hvm'), '--p---');
    await must('rm /images/h.xl');
    assert.equal(await files(), '');
    await must('xl save hvm /images/h.xl');
    await failing('dormouse --json restore /images/h.xl', 13, 'IMAGE_INCOMPATIBLE', 'none');
    const restored = await lab.exec(`${ours} xl restore /images/h.xl`, slow);
    assert.notEqual(restored.code, 0);
    assert.match(restored.stderr, /HVM guest.*`xl restore`/);
    assert.equal((await must("xl list | awk 'NR > 2'")).trim(), '');
  });

  test('a guest with virtual NUMA nodes is refused, whatever its type', async () => {
    // xl 4.17 makes only HVM guests of that kind, which are refused by their type before.
    const nodes = 'vnuma = [ [ "pnode=0", "size=32", "vcpus=0", "vdistances=10" ] ]';
    await must(`(cat /domu/hvm.cfg; echo '${nodes}') > /domu/numa.cfg; xl create -q -p /domu/numa.cfg`);
    await must(`${checks} vnuma hvm`);
    assert.match((await lab.exec('xl save hvm /images/n.xl', slow)).stderr, /vNUMA/);
    assert.equal(await stateOf('hvm'), '--p---');
  });

  test('events say what becomes of a domain, in order, a zombie and a second suspension too', async () => {
    const guest = await Guest.create(lab, { name: 'told', type: 'pv', memoryMib: 96, loadMib: 1 });
    const [domid, log] = [await guest.domid(), '/tmp/events'];
    const uuid = (await must("xl list -v told | awk 'NR == 2 { print $7 }'")).trim();
    const told = async (count: number): Promise<unknown[]> => {
      await must(
        `for i in $(seq 600); do [ $(wc -l < ${log}) -gt ${count} ] && exit 0; sleep 0.2; done; cat ${log}; exit 1`,
      );
      const lines = (await must(`tail -n +2 ${log}`)).trim().split('\n');
      return lines.slice(0, count).map((line) => JSON.parse(line) as unknown);
    };
    await must(`${checks} events told > ${log} 2>&1 & echo $! > /tmp/lock.pid`);
    await told(0);
    for (const [count, image] of ['a', 'b'].entries()) {
      await must(`dormouse checkpoint --mode cooperative told /images/${image}.img`);
      await told(count + 1);
    }
    const zombie = `/tmp/zombie`;
    await must(
      `${checks} hold told none > ${zombie} 2>&1 & echo $! > ${zombie}.pid; for i in $(seq 900); do grep -q holding ${zombie} && exit 0; sleep 0.1; done; cat ${zombie}; exit 1`,
    );
    await must('xl destroy told');
    await told(3);
    await must(`kill -9 $(cat ${zombie}.pid)`);
    const what = { domid, uuid };
    assert.deepEqual(await told(4), [
      { type: 'shutdown', ...what, reason: 'suspend', sequence: 1 },
      { type: 'shutdown', ...what, reason: 'suspend', sequence: 2 },
      { type: 'dying', ...what, reason: null, sequence: 3 },
      { type: 'released', ...what, reason: null, sequence: 4 },
    ]);
  });

  /** What xl writes at the head of a file; the save itself is let fail, so that the guest is not stopped. */
  async function xlWrites(name: string): Promise<LibxlConfig> {
    await lab.exec(`LIBXL_SAVE_HELPER=/bin/false xl save -c ${name} /images/xl.xl`, slow);
    return headerConfig(await lab.read('/images/xl.xl'));
  }

  /** What is in a new image of ours. */
  async function imageHolds(name: string): Promise<LibxlConfig> {
    await must(`rm -f /images/i.*; dormouse checkpoint --mode cooperative ${name} /images/i.img`);
    await must(
      'dormouse image convert /images/i.img /images/i.xl; head -c 65536 /images/i.xl > /images/head.xl',
    );
    return headerConfig(await lab.read('/images/head.xl'));
  }

  /** What our verbs would put into an image now. */
  async function oursIs(name: string): Promise<LibxlConfig> {
    const { domains } = JSON.parse(await must(`dormouse --json list -l ${name}`)) as {
      domains: { config: string }[];
    };
    return JSON.parse(domains[0]?.config ?? '') as LibxlConfig;
  }

  test('an image has the configuration that xl save writes, whatever was plugged, unplugged or set', async () => {
    const options: GuestOptions = { name: 'plug', type: 'pvh', vcpus: 2, memoryMib: 128, loadMib: 1 };
    const guest = await Guest.create(lab, options);
    await must('truncate -s 1M /images/a.disk /images/b.disk');
    const same = async (after: string): Promise<LibxlConfig> => {
      if (after !== '') await must(after);
      const [mine, theirs] = [await oursIs('plug'), await xlWrites('plug')];
      assert.deepEqual(mine, theirs, after);
      return mine;
    };
    const before = await same('');
    assert.deepEqual([before.disks, before.b_info.avail_vcpus], [undefined, [0, 1]]);
    await must('xl block-attach plug /images/a.disk,raw,xvdb,w; xl network-attach plug bridge=xenbr0');
    const more = await same('xl block-attach plug /images/b.disk,raw,xvdc,r');
    assert.deepEqual([more.disks?.map(({ vdev }) => vdev), more.nics?.length], [['xvdb', 'xvdc'], 1]);
    assert.deepEqual(await imageHolds('plug'), more);
    const less = await same('xl block-detach plug xvdb; xl network-detach plug 0; xl vcpu-set plug 1');
    assert.deepEqual([less.disks?.map(({ vdev }) => vdev), less.nics], [['xvdc'], undefined]);
    assert.deepEqual(less.b_info.avail_vcpus, [0]);
    // Else this would prove nothing: libxl's own file still has what is gone.
    assert.match(await must(`cat /var/lib/xen/userdata-d.${await guest.domid()}.*.libxl-json`), /xvdb/);
    const smaller = await same('xl mem-set plug 120');
    assert.equal(smaller.b_info.target_memkb, 120 * 1024);
    assert.deepEqual(await imageHolds('plug'), smaller);
    await must('xl mem-set plug 128; dormouse save plug /images/p.img');
    await must('dormouse restore /images/p.img');
    assert.equal((await must("xl block-list plug | awk 'NR > 1 { print $1 }'")).trim().split('\n').length, 1);
    await guest.waitTicks(2);
  });

  test('while libxl is at work on a domain its guest is not stopped, and half a minute later it is LOCKED', async () => {
    const config = guestConfig({ name: 'busy', type: 'pv', memoryMib: 96, loadMib: 1 }, lab);
    await must(`cat > /domu/busy.cfg <<'EOF'\n${config}EOF`);
    await must('xl create -q /domu/busy.cfg');
    const file = "/var/lib/xen/userdata-l.$(xl domid busy).$(xl list -v busy | awk 'NR == 2 { print $7 }')";
    // dom0's busybox has none.
    await lab.put('/usr/bin/flock', '/tmp/flock');
    await must(
      `chmod 755 /tmp/flock; /tmp/flock ${file}.domain-userdata-lock sleep 600 & echo $! > /tmp/lock.pid; sleep 2`,
    );
    const begun = Date.now();
    assert.match(
      await failing('dormouse --json save busy /images/l.img', 11, 'LOCKED', 'untouched'),
      /not done in 30 s/,
    );
    assert.ok(Date.now() - begun < lockedMs);
    assert.match(await stateOf('busy'), /^[r-][b-]----$/);
    assert.equal(await files(), '');
  });
});

/** The verbs beside xl's own on real Xen: list, domstate, dump-core, the monitor after a checkpoint, files of xl save, traps. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { destroyGuests, Guest, guestConfig, type GuestOptions } from './guests.js';
import { startLab, type Lab } from './lab.js';
import { putOracles } from './oracles.js';
import { lastTick } from './ticks.js';

const slow = { timeoutMs: 600_000 };
const checks = 'node /project/dist/lab/host_checks.js';

describe('verbs on Xen', () => {
  let lab: Lab;
  const must = (script: string): Promise<string> => lab.must(script, slow);
  const create = (options: GuestOptions): Promise<Guest> => Guest.create(lab, { loadMib: 1, ...options });

  before(async () => {
    lab = await startLab({ cpus: 6 });
    await putOracles(lab, 'core_pages', 'grant_page');
  });
  /** Whatever a test that failed left would take processors from the next ones. */
  afterEach(async () => {
    await lab.exec(
      'kill -9 $(cat /tmp/hold-*.pid /tmp/grant.pid) 2>/dev/null; rm -f /tmp/hold-*.pid /tmp/grant.pid',
    );
    await destroyGuests(lab);
    await lab.exec('rm -f /images/*.*');
  });
  after(() => lab.stop());

  /** Starts a domain without waiting for what is in it. */
  async function start(options: GuestOptions, change = '', flags = ''): Promise<void> {
    const config = `/domu/${options.name}.cfg`;
    await must(`cat > ${config} <<'EOF'\n${guestConfig(options, lab)}EOF`);
    await must(`${change} xl create -q ${flags} ${config}`.replaceAll('CONFIG', config));
  }

  async function stateOf(selector: string | number): Promise<string> {
    return (await must(`xl list ${selector} | awk 'NR == 2 { print $5 }'`)).trim();
  }
  async function reaches(selector: string | number, state: RegExp): Promise<void> {
    const end = Date.now() + 180_000;
    for (;;) {
      const seen = await stateOf(selector);
      if (state.test(seen)) return;
      assert.ok(Date.now() < end, `${selector} is ${seen}`);
      await sleep(500);
    }
  }

  /** Holds a guest in some way until the returned function is called. */
  async function holding(guest: string, what: string): Promise<() => Promise<void>> {
    const log = `/tmp/hold-${guest}`;
    await must(`rm -f ${log}; ${checks} hold ${guest} ${what} > ${log} 2>&1 & echo $! > ${log}.pid`);
    await must(
      `for i in $(seq 900); do grep -q holding ${log} && exit 0; sleep 0.1; done; cat ${log}; exit 1`,
    );
    return async () => {
      await must(`kill -9 $(cat ${log}.pid)`);
    };
  }

  const timeless = (row: string): string => row.replace(/ {2}[ \d]{6,}\.\d$/, '');
  /** Whether a vCPU runs or blocks changes while one looks. */
  const restless = (row: string): string => row.replace(/ {5}[r-][b-](?=[p-]{4})/, '     ??');

  /**
   * Ours between two of xl's: a row that is the same in those two is in ours, byte for byte; of the others (domains that
   * run meanwhile) all but the time, and r and b where those changed.
   */
  async function assertSameList(domains = ''): Promise<string[]> {
    const out = await must(
      `xl list ${domains}; echo ----; dormouse list ${domains}; echo ----; xl list ${domains}`,
    );
    const [xlBefore = [], ours = [], xlAfter = []] = out.split('----\n').map((part) => part.split('\n'));
    assert.equal(ours.length, xlBefore.length, out);
    let exact = 0;
    for (const [i, row] of ours.entries()) {
      const [one = '', two = ''] = [xlBefore[i], xlAfter[i]];
      if (one === two) {
        assert.equal(row, one);
        exact++;
      } else if (timeless(one) === timeless(two)) assert.equal(timeless(row), timeless(one));
      else assert.equal(restless(timeless(row)), restless(timeless(one)));
    }
    return [String(exact), ...ours];
  }

  test('list prints what xl list prints, domstate says what it means, in every state', async (t) => {
    const live = await create({ name: 'live', type: 'pv', onReboot: 'preserve' });
    const asleep = await create({ name: 'asleep', type: 'pv', onPoweroff: 'preserve' });
    await start({ name: 'held', type: 'pv' }, '', '-p');
    // Without a root file system its kernel panics.
    await start({ name: 'crashed', type: 'pv' }, 'sed -i /^ramdisk/d CONFIG;');
    await start({ name: 'ghost', type: 'pvh' }, '', '-p');
    const ghost = (await must('xl domid ghost')).trim();
    const release = await holding('ghost', 'none');
    await must('xl destroy ghost');
    await reaches('crashed', /^---sc-$/);
    const wake = await holding('asleep', 'suspend');
    const states: readonly (readonly [string, RegExp, RegExp])[] = [
      ['0', /^r-----$/, /^running \(unknown\)$/],
      ['live', /^[r-][b-]----$/, /^(running|idle) \(unknown\)$/],
      ['asleep', /^---ss-$/, /^shut off \(suspend\)$/],
      ['held', /^--p---$/, /^paused \(user\)$/],
      ['crashed', /^---sc-$/, /^crashed \(crash\)$/],
      [ghost, /^--p[s-][-rscwS]d$/, /^in shutdown \(/],
    ];
    const { domains } = JSON.parse(await must('dormouse --json list')) as {
      domains: { domid: number; name: string; state: string; reason: string }[];
    };
    for (const [name, letters, words] of states) {
      assert.match(await stateOf(name), letters, name);
      const said = domains.find((domain) => domain.name === name || String(domain.domid) === name);
      assert.match(`${said?.state} (${said?.reason})`, words, name);
    }
    assert.equal(await must('dormouse domstate --reason crashed'), 'crashed (crash)\n');
    const [exact, ...rows] = await assertSameList();
    t.diagnostic(rows.join('\n'));
    assert.ok(Number(exact) >= 5, `${exact} rows were compared to the last byte`);
    assert.ok(rows.some((row) => row.startsWith('(null)')));
    await assertSameList('held');
    await release();
    await wake();
    await reaches('asleep', /^[r-][b-]----$/);
    await must('xl sysrq live b; xl sysrq asleep o');
    await reaches('live', /^---sr-$/);
    await reaches('asleep', /^---s--$/);
    await assertSameList();
    assert.equal(await must('dormouse domstate --reason live'), 'shut off (reboot)\n');
    await must('xl destroy held; xl destroy crashed');
    await live.destroy();
    await asleep.destroy();
  });

  test('create, pause, unpause, digest and destroy', async () => {
    const config = guestConfig({ name: 'made', type: 'pv', loadMib: 1 }, lab);
    await must(`cat > /domu/made.cfg <<'EOF'\n${config}EOF`);
    await must("dormouse create -p /domu/made.cfg 'on_crash=destroy'");
    assert.equal(await stateOf('made'), '--p---');
    const taken = await lab.exec('dormouse --json create /domu/made.cfg', slow);
    assert.deepEqual([taken.code, /"name":"(\w+)"/.exec(taken.stderr)?.[1]], [4, 'DOMAIN_EXISTS']);
    const wrong = await lab.exec("dormouse --json create /domu/made.cfg name=other 'kernel=/no/such'", slow);
    assert.deepEqual([wrong.code, /"name":"(\w+)"/.exec(wrong.stderr)?.[1]], [2, 'CONFIG_INVALID']);
    assert.match(wrong.stderr, /\/no\/such/);
    assert.equal((await must("xl list | awk 'NR > 2 { print $1 }'")).trim(), 'made');
    await must('dormouse unpause made');
    await reaches('made', /^[r-][b-]----$/);
    const log = '/var/log/xen/console/guest-made.log';
    await must(`for i in $(seq 600); do grep -q '^tick 2' ${log} && exit 0; sleep 0.1; done; exit 1`);
    const { pages } = JSON.parse(await must('dormouse --json digest made')) as { pages: number };
    assert.ok(pages >= 128 * 256);
    await must('dormouse pause made');
    assert.equal(await stateOf('made'), '--p---');
    for (const verb of ['save', 'save -c', 'save -p']) {
      const { code, stderr } = await lab.exec(`dormouse --json ${verb} made /images/m.img`, slow);
      assert.deepEqual([code, /"name":"(\w+)"/.exec(stderr)?.[1]], [4, 'DOMAIN_WRONG_STATE'], stderr);
    }
    assert.match(
      await must('dormouse host status'),
      /^host: +Xen 4\.17\n[^]*^cow-snapshot: +no: [^]*^made /m,
    );
    await must('dormouse destroy made');
    assert.notEqual((await lab.exec('xl domid made')).code, 0);
  });

  test('dump-core of a paused PV guest is the file of xl dump-core; of a running one it goes on', async () => {
    const guest = await create({ name: 'pvcore', type: 'pv', vcpus: 2 });
    await must('xl pause pvcore');
    await must('dormouse dump-core pvcore /images/ours.core; xl dump-core pvcore /images/xl.core');
    await must('cmp /images/ours.core /images/xl.core; rm /images/*.core; xl unpause pvcore');
    const dump = JSON.parse(await must('dormouse --json dump-core pvcore /images/b.core')) as {
      pauseMs: number;
    };
    assert.ok(dump.pauseMs > 0);
    assert.equal((await must('stat -c %a /images/b.core; rm /images/b.core')).trim(), '600');
    await guest.waitTicks(2);
    await guest.destroy();
  });

  test('dump-core of a PVH guest holds all of its pages', async () => {
    const guest = await create({ name: 'hvcore', type: 'pvh' });
    await must('xl pause hvcore; dormouse dump-core hvcore /images/a.core');
    // xl itself looks at a million empty pfns one by one, which takes it minutes here.
    const script =
      "import { CoreDump } from '/project/dist/lab/elf_core.js'; const core = new CoreDump('/images/a.core');" +
      "const at = (name) => core.section(name); const pages = at('.xen_pfn').bytes / 8;" +
      "console.log(at('.xen_pages').offset, at('.xen_pfn').offset, pages)";
    const places = (await must(`node --input-type=module -e "${script}"`)).trim();
    const said = await must(
      `/tmp/core_pages ${await guest.domid()} /images/a.core ${places}; rm /images/a.core`,
    );
    const [compared, owned] = said.trim().split(' ').map(Number);
    assert.equal(compared, owned);
    await must('xl unpause hvcore');
    await guest.waitTicks(2);
    await guest.destroy();
  });

  /** Waits for a domain of that name that is not `domid`, and until it works. */
  async function reborn(guest: Guest, domid: number): Promise<number> {
    const end = Date.now() + 180_000;
    for (;;) {
      const now = Number((await lab.exec(`xl domid ${guest.name}`)).stdout);
      if (now > domid) {
        await guest.waitTicks(2);
        return now;
      }
      assert.ok(Date.now() < end, `no new domain: ${await must(`cat /var/log/xen/xl-${guest.name}.log`)}`);
      await sleep(500);
    }
  }

  test('after checkpoints and save -c a reboot and a crash are handled as the configuration says', async () => {
    const guest = await create({ name: 'phoenix', type: 'pv', onCrash: 'restart', onReboot: 'restart' });
    const first = await guest.domid();
    const log = '/var/log/xen/xl-phoenix.log';
    const monitor = (await must(`sed -n 's/.*pid \\([0-9]*\\)]$/\\1/p' ${log} | tail -n 1`)).trim();
    const monitorState = async (): Promise<string> =>
      (await must(`cut -d' ' -f3 /proc/${monitor}/stat`)).trim();
    for (const command of ['checkpoint --mode cooperative', 'save -c', 'checkpoint']) {
      const { code, stderr } = await lab.exec(
        `dormouse ${command} phoenix /images/p.img; rm /images/p.img`,
        slow,
      );
      assert.equal(code, 0, stderr);
      assert.doesNotMatch(stderr, /no xl process/);
      assert.match(await monitorState(), /^[SR]$/, command);
    }
    await must('xl sysrq phoenix b');
    const second = await reborn(guest, first);
    const kill = await holding('phoenix', 'suspend');
    assert.equal(await monitorState(), 'T');
    await kill();
    await reaches('phoenix', /^[r-][b-]----$/);
    await must(
      `for i in $(seq 50); do [ $(cut -d' ' -f3 /proc/${monitor}/stat) = T ] || exit 0; sleep 0.1; done; exit 1`,
    );
    await guest.crash();
    const third = await reborn(guest, second);
    await must(`kill -9 ${monitor}`);
    const alone = await lab.exec('dormouse save -c phoenix /images/p.img; rm /images/p.img', slow);
    assert.equal(alone.code, 0, alone.stderr);
    assert.match(alone.stderr, new RegExp(`domain ${third}: no xl process watches it`));
    await guest.destroy();
  });

  test('a guest that stock xl saved is taken over with one command', async () => {
    const guest = await create({ name: 'taken', type: 'pv', loadMib: 8 });
    await must('xl save taken /images/taken.xl && dormouse restore --trust-config /images/taken.xl');
    assert.equal((await must('ls -A /images | grep -v lost')).trim(), 'taken.xl');
    const from = lastTick(await guest.waitTicks(1)).rounds;
    while (lastTick(await guest.waitTicks(1)).rounds < from + 2);
    await guest.destroy();
    await must('rm /images/taken.xl');
  });

  for (const type of ['pv', 'pvh'] as const)
    test(`a ${type} guest that balloons while it is saved comes back in the right size`, async () => {
      const guest = await create({ name: 'balloon', type, memoryMib: 160 });
      const full = lastTick(await guest.ticks()).memKib;
      const started =
        'for i in $(seq 900); do [ -e /run/dormouse/xen/$(xl domid balloon).lock ] && break; sleep 0.1; done';
      await must(
        `dormouse save -c balloon /images/b.img & save=$!; ${started}; xl mem-set balloon 128; wait $save`,
      );
      let small = lastTick(await guest.waitTicks(2)).memKib;
      while (small > full - 28 * 1024) small = lastTick(await guest.waitTicks(1)).memKib;
      const image = JSON.parse(await must('dormouse --json image inspect /images/b.img')) as {
        counts: { data: number; zero: number; table: number };
      };
      await must('xl destroy balloon && dormouse restore /images/b.img && rm /images/b.img');
      let tick = lastTick(await guest.waitTicks(2));
      while (tick.memKib > full - 28 * 1024) tick = lastTick(await guest.waitTicks(1));
      assert.ok(Math.abs(tick.memKib - small) < 1024, `${tick.memKib} KiB, before ${small} KiB`);
      const { data, zero, table } = image.counts;
      const shown = Number((await must("xl list balloon | awk 'NR == 2 { print $3 }'")).trim());
      assert.ok(shown <= 129, `${shown} MiB`);
      assert.ok(data + zero + table <= 161 * 256);
      await guest.destroy();
    });

  test('nothing stops the control domain', async () => {
    for (const verb of ['pause', 'destroy', 'save', 'save -c', 'checkpoint', 'dump-core', 'digest']) {
      const file = /^(pause|destroy|digest)$/.test(verb) ? '' : '/images/zero';
      const { code, stderr } = await lab.exec(`dormouse --json ${verb} Domain-0 ${file}`, slow);
      assert.deepEqual([code, /"name":"(\w+)"/.exec(stderr)?.[1]], [4, 'DOMAIN_WRONG_STATE'], stderr);
    }
    assert.equal((await must('ls /images | grep -v lost || true')).trim(), '');
  });

  test('an embedded host on the same machine is left alone', async () => {
    await must('dormouse host start');
    try {
      const { stdout, stderr } = await lab.exec('dormouse list', { timeoutMs: 60_000 });
      assert.match(stdout, /^Domain-0 /m);
      assert.equal(stderr, '');
      assert.match(await must('dormouse --host embedded create name=here memory=8'), /here/);
      assert.match(await must('dormouse --host embedded list'), /^here /m);
    } finally {
      await must('dormouse host stop --force');
    }
  });

  test('a guest that never answers is as it was after the timeout, its monitor too', async () => {
    const guest = await create({ name: 'deaf', type: 'pv', deaf: true, onCrash: 'restart' });
    const domid = await guest.domid();
    const control = `/local/domain/${domid}/control/shutdown`;
    for (const verb of ['save', 'save -c']) {
      const script = `dormouse --json ${verb} --suspend-timeout 2 deaf /images/d.img`;
      const { code, stderr } = await lab.exec(script, slow);
      assert.deepEqual([code, /"name":"(\w+)"/.exec(stderr)?.[1]], [20, 'SUSPEND_TIMEOUT'], stderr);
      assert.equal((await must(`xenstore-read ${control}`)).trim(), '');
      assert.match(await stateOf('deaf'), /^[r-][b-]----$/);
      assert.equal(
        (await must('ls -A /images /run/dormouse/xen | grep -v lost')).trim(),
        '/images:\n\n/run/dormouse/xen:',
      );
      await guest.waitTicks(2);
    }
    await guest.crash();
    await reborn(guest, domid);
    await guest.destroy();
  });

  test('a frame of another domain in a page table is a named error, and the guest runs on', async () => {
    await start({ name: 'counter', type: 'pv' }, '', '-p');
    const next = Number((await must('xl domid counter')).trim()) + 1;
    await must('xl destroy counter');
    await must(
      `/tmp/grant_page ${next} > /tmp/grant & echo $! > /tmp/grant.pid; for i in $(seq 50); do [ -s /tmp/grant ] && exit 0; sleep 0.1; done; exit 1`,
    );
    const grantRef = Number((await must('cat /tmp/grant')).trim());
    const guest = await create({ name: 'borrower', type: 'pv', grantRef });
    assert.equal(await guest.domid(), next);
    assert.match(await guest.console(), /granted page holds 646f6d3020776173/);
    for (const [verb, state] of [
      ['checkpoint', 'untouched'],
      ['save -c', 'resumed'],
      ['save', 'resumed'],
    ] as const) {
      const { code, stderr } = await lab.exec(`dormouse --json ${verb} borrower /images/f.img`, slow);
      const error = JSON.parse(stderr.trimEnd().split('\n').at(-1) ?? '') as Record<string, unknown>;
      assert.ok(code !== 0);
      assert.deepEqual([error.name, error.guest], ['PAGE_TABLE_INVALID', state], verb);
      assert.match(String(error.message), /page table at pfn \d+ \(level 1\)/);
      assert.equal((await must('ls -A /images | grep -v lost; true')).trim(), '');
      await guest.waitTicks(2);
    }
    const ours = 'LIBXL_SAVE_HELPER=/project/bin/dormouse-save-helper';
    for (const verb of ['save -c', 'save']) {
      const { code, stderr } = await lab.exec(`${ours} xl ${verb} borrower /images/f.xl`, slow);
      assert.ok(code !== 0);
      assert.match(stderr, /page table at pfn \d+ \(level 1\)/, verb);
      await guest.waitTicks(2);
    }
    await guest.destroy();
  });
});

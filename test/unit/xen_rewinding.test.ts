/**
 * Taking a domain off its devices, and putting it back, over a Xen and backends that can fail at each step: either nothing of it was
 * changed and its devices are back, or the mark says that it is half rewound, and the next one makes it whole.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { describe, test, type TestContext } from 'node:test';
import type { DomainLinks, DomainState } from '../../src/domain/state.js';
import { asDormouseError, DormouseError } from '../../src/errors.js';
import type { XenRewriterHandle } from '../../src/handle.js';
import { describeDevices, findDevices } from '../../src/host/xen/devices.js';
import { RewindMarks } from '../../src/host/xen/rewind_marks.js';
import { beginRewinding, type Rewinding, rewindObstacles } from '../../src/host/xen/rewinding.js';
import { channelObstacle, startOf } from '../../src/host/xen/ties.js';
import { DeviceMachine } from '../support/device_machine.js';
import { tempDir } from '../support/images.js';

const uuid = '01234567-89ab-cdef-0123-456789abcdef';
const handle = Buffer.from(uuid.replaceAll('-', ''), 'hex');
const paused = 1 << 3;
const [unbound, interdomain, virq] = [1, 2, 4];

/** Of domain 7: ports 1 and 2 are of the rings, 3 of a device, 4 a virtual interrupt. */
const channelsOn = Buffer.from([0, interdomain, interdomain, interdomain, virq]);

class Stage {
  readonly machine = new DeviceMachine().device('vif', 0).device('vbd', 51712, { mode: 'r' });
  readonly marks: RewindMarks;
  readonly calls: string[] = [];
  /** Which call throws, counted from 0. */
  failsAt = Infinity;
  isPaused = true;
  /** Another domain's end of the device's channel. */
  isBoundElsewhere = false;
  /** How often a closed backend is still found at its channel. */
  boundLonger = 0;
  rewrote = false;
  timers = '';
  readonly told: string[] = [];
  /** Called before each call is carried out. */
  before: (call: string) => void = () => undefined;

  constructor(t: TestContext) {
    const dir = tempDir(t);
    t.after(() => rmSync(dir, { recursive: true, force: true }));
    this.marks = new RewindMarks(dir);
    for (const [node, value] of Object.entries({
      'store/ring-ref': '5',
      'store/port': '1',
      'console/port': '2',
      'control/shutdown': '',
    }))
      this.machine.nodes.set(`/local/domain/7/${node}`, value);
  }

  #call<T>(name: string, work: () => T): T {
    this.before(name);
    const index = this.calls.push(name) - 1;
    if (index === this.failsAt) throw new DormouseError('HOST_UNAVAILABLE', `${name} fails`);
    return work();
  }

  get areDevicesOn(): boolean {
    return ['vif/7/0', 'vbd/7/51712'].every(
      (path) => this.machine.nodes.get(`/local/domain/0/backend/${path}/state`) === '4',
    );
  }

  state(links: Partial<DomainLinks>): DomainState {
    const none = {
      grants: Buffer.alloc(0),
      channels: channelsOn,
      eventArrayPfn: 9,
      unfit: '',
      rings: Buffer.alloc(0),
    };
    return {
      vcpus: [],
      links: { ...none, start: startOf(7), devices: '', ...links },
    } as unknown as DomainState;
  }

  async rewinding(links: Partial<DomainLinks> = {}): Promise<Rewinding> {
    const devices = describeDevices(await findDevices(this.machine.store, 7));
    const call = <T>(name: string, work: () => T): T => this.#call(name, work);
    const stored = this.machine.store;
    const api = {
      domain: () =>
        call('domain', () => {
          if (!this.machine.isThere) throw new DormouseError('DOMAIN_NOT_FOUND', 'there is no domain 7');
          return { handle, flags: this.isPaused ? paused : 0 };
        }),
      channels: () =>
        call('channels', () => {
          const now = Buffer.from(channelsOn);
          const isOff = !this.isBoundElsewhere && !this.areDevicesOn;
          if (isOff && this.boundLonger-- <= 0) now[3] = unbound;
          return now;
        }),
      pause: () => call('pause', () => void (this.isPaused = true)),
      rewriterCheckTies: () => call('check', () => undefined),
      rewriterBegin: () => {
        this.rewrote = true;
        call('begin', () => undefined);
      },
      rewriterLand: () => call('land', () => this.timers),
    };
    const xenstore = {
      ...stored,
      transaction: (body: Parameters<typeof stored.transaction>[0]) =>
        Promise.resolve().then(() => call('transaction', () => stored.transaction(body))),
      resumeDomain: () => Promise.resolve(),
    };
    return {
      ...{ api, xenstore, domid: 7, uuid, marks: this.marks, rewriter: {} as XenRewriterHandle },
      target: { state: this.state({ devices, ...links }), keepDisks: false },
      held: { note: () => undefined },
      notice: (text: string) => void this.told.push(text),
      endLog: () => call('endLog', () => undefined),
    } as unknown as Rewinding;
  }

  /** As a rollback calls it; what looks for pages in between may fail too. */
  async goBack(of: Rewinding): Promise<void> {
    const rewinder = await beginRewinding(of);
    try {
      this.#call('settle', () => undefined);
    } catch (thrown) {
      await rewinder.abandon();
      throw thrown;
    }
    await rewinder.begin();
    try {
      this.#call('write', () => undefined);
      await rewinder.complete({ pins: [], state: of.target.state });
    } catch (thrown) {
      await rewinder.requireThere();
      throw thrown;
    }
  }

  async outcome(of: Rewinding): Promise<string> {
    try {
      await this.goBack(of);
      return 'whole';
    } catch (thrown) {
      return asDormouseError(thrown).code;
    }
  }

  get isMarked(): boolean {
    return this.marks.has(7, uuid);
  }
}

describe('a domain on its way back', () => {
  test('it is whole, its devices are on, and it is told once more that there is something to read', async (t) => {
    const stage = new Stage(t);
    await stage.goBack(await stage.rewinding());
    assert.deepEqual([stage.isMarked, stage.areDevicesOn], [false, true]);
    assert.equal(stage.machine.written.at(-1), 'shutdown=');
    const order = stage.calls.filter((name) => ['check', 'endLog', 'begin', 'write', 'land'].includes(name));
    assert.deepEqual(order, ['check', 'endLog', 'begin', 'write', 'land']);
    stage.machine.nodes.set('/local/domain/7/control/shutdown', 'poweroff');
    await stage.goBack(await stage.rewinding());
    assert.equal(stage.machine.nodes.get('/local/domain/7/control/shutdown'), '');
    assert.deepEqual(stage.told, []);
    stage.timers = 'no such page';
    await stage.goBack(await stage.rewinding());
    assert.match(stage.told.join(), /^domain 7: its timers could not be raised \(no such page\)/);
  });

  test('whatever fails, it is as it was or marked, and the next one makes it whole', async (t) => {
    const whole = new Stage(t);
    await whole.goBack(await whole.rewinding());
    const seen = new Set<string>();
    for (let failsAt = 0; failsAt < whole.calls.length; failsAt++) {
      const stage = new Stage(t);
      const of = await stage.rewinding();
      stage.failsAt = failsAt;
      const at = `call ${failsAt}, ${whole.calls[failsAt] ?? ''}`;
      assert.equal(await stage.outcome(of), 'HOST_UNAVAILABLE', at);
      assert.equal(stage.isMarked, stage.rewrote, at);
      if (!stage.rewrote) assert.ok(stage.areDevicesOn, at);
      seen.add(stage.rewrote ? 'marked' : 'as it was');
      stage.failsAt = Infinity;
      assert.equal(await stage.outcome(of), 'whole', at);
      assert.deepEqual([stage.isMarked, stage.areDevicesOn], [false, true], at);
    }
    assert.equal(seen.size, 2);
  });

  test('destroyed at any step: nothing is made of it again, and the mark is gone', async (t) => {
    const whole = new Stage(t);
    await whole.goBack(await whole.rewinding());
    for (let when = 0; when < whole.calls.length; when++) {
      const stage = new Stage(t);
      const of = await stage.rewinding();
      stage.before = () => {
        if (stage.calls.length !== when) return;
        stage.before = () => undefined;
        stage.machine.destroy();
        // Its frames go first.
        if (whole.calls[when] === 'write') throw new DormouseError('IMAGE_DAMAGED', 'a page has no frame');
      };
      const outcome = await stage.outcome(of);
      assert.equal(outcome, 'DOMAIN_NOT_FOUND', `call ${when}`);
      assert.deepEqual([stage.isMarked, [...stage.machine.nodes]], [false, []], `call ${when}`);
    }
  });

  test('let go by somebody else half way, it is not called whole', async (t) => {
    const stage = new Stage(t);
    stage.before = (call) => {
      if (call === 'land') stage.isPaused = false;
    };
    assert.equal(await stage.outcome(await stage.rewinding()), 'DOMAIN_WRONG_STATE');
    assert.ok(stage.isMarked);
    stage.before = () => undefined;
    assert.equal(await stage.outcome(await stage.rewinding()), 'whole');
    assert.ok(stage.isPaused, 'it was paused before anything more was written');
  });

  test('a channel that no backend of ours lets go stands against it', async (t) => {
    const stage = new Stage(t);
    stage.isBoundElsewhere = true;
    assert.equal(await stage.outcome(await stage.rewinding()), 'HOST_LACKS');
    assert.deepEqual([stage.isMarked, stage.areDevicesOn, stage.rewrote], [false, true, false]);
  });

  test('a backend that is closed with requests on their way is told again, and waited for', async (t) => {
    const stage = new Stage(t);
    stage.boundLonger = 3;
    assert.equal(await stage.outcome(await stage.rewinding()), 'whole');
    const closed = stage.machine.written.filter((line) => line === 'vif/0/state=6').length;
    assert.equal(closed, 4);
  });

  test('of one that was left half rewound the same is asked, but for devices that are off', async (t) => {
    const stage = new Stage(t);
    const of = await stage.rewinding();
    stage.before = (call) => {
      if (call === 'land') throw new Error('killed');
    };
    await assert.rejects(stage.goBack(of));
    assert.ok(stage.isMarked && !stage.areDevicesOn);
    stage.before = () => undefined;
    assert.deepEqual(await rewindObstacles(of), []);
    const messages = async (links: Partial<DomainLinks>): Promise<string> =>
      (await rewindObstacles(await stage.rewinding(links))).map(({ message }) => message).join();
    assert.match(await messages({ start: '7 another boot' }), /started anew/);
    assert.match(await messages({ devices: '[]' }), /not those of the image/);
    assert.match(await messages({ channels: Buffer.alloc(0) }), /event channel 1 is not/);
    stage.machine.nodes.set('/local/domain/0/backend/vbd/7/51712/mode', 'w');
    assert.match(await messages({}), /--keep-disks/);
  });
});

test('channels are compared by what they are for', () => {
  const rings = { storeFrame: 5, storePort: 1, consolePort: 2 };
  const says = (then: number[], now: number[], off = false): string =>
    channelObstacle(Buffer.from(then), Buffer.from(now), rings, off)?.message ?? 'same';
  assert.equal(says([0, 2, 2, 2, 4], [0, 2, 2, 1, 4]), 'same');
  assert.equal(says([0, 2, 2, 1], [0, 2, 2, 2]), 'same');
  assert.equal(says([0, 2, 2], [0, 2, 2, 0, 0]), 'same', 'closed ports at the end count for nothing');
  assert.equal(says([0, 2, 2, 2], [0, 2, 2, 1], true), 'same');
  assert.match(says([0, 2, 2, 2], [0, 2, 2, 2], true), /channel 3 leads to another domain/);
  assert.match(says([0, 2, 2, 1], [0, 2, 2, 2], true), /channel 3 leads to another domain/);
  assert.match(says([0, 2, 2], [0, 1, 2]), /channel 1 is not/, 'the rings stay bound');
  assert.match(says([0, 2, 2, 4], [0, 2, 2, 5]), /channel 3 is not/);
  assert.match(says([0, 2, 2], [0, 2, 2, 2]), /channel 3 is not/);
  assert.match(says([0, 2, 2, 2], [0, 2, 2]), /channel 3 is not/);
});

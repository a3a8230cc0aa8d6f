/** The order in which a guest is brought to stand, and what becomes of its mapping whatever fails on the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { suspendGuest } from '../../src/capture/stand_still.js';
import { Operation } from '../../src/domain/operation.js';
import { DormouseError } from '../../src/errors.js';
import type { Lease } from '../../src/host/contract.js';
import { domainInfo, FakeHost } from '../support/fake_host.js';
import type { DomainState, MemoryGeometry } from '../../src/domain/state.js';
import type { MemoryHandle } from '../../src/handle.js';

const steps = ['ready', 'config', 'open', 'suspend', 'catchUp', 'geometry', 'state'] as const;
type Step = (typeof steps)[number];

/** Writes down what it is asked for; `failing` is refused. */
function scene(failing?: Step): { asked: string[]; stand: () => ReturnType<typeof suspendGuest> } {
  const asked: string[] = [];
  const host = new FakeHost();
  const take = (step: Step): void => {
    asked.push(step);
    if (step === failing) throw new DormouseError('NO_MEMORY', `no ${step}`);
  };
  const does = <T>(step: Step, value: T): Promise<T> =>
    new Promise((resolve) => {
      take(step);
      resolve(value);
    });
  host.openMemory = () =>
    does('open', {
      handle: 1 as MemoryHandle,
      kind: 'live' as const,
      catchUp: () => take('catchUp'),
      close: () => void asked.push('close'),
    });
  host.config = () => does('config', '');
  host.suspend = () => does('suspend', undefined);
  host.geometry = () => does('geometry', {} as MemoryGeometry);
  host.readState = () => does('state', {} as DomainState);
  const lease: Lease = { domid: 1, release: () => Promise.resolve() };
  const stand = (): ReturnType<typeof suspendGuest> =>
    suspendGuest(host, lease, domainInfo(), {
      timeoutMs: 1000,
      ready: does('ready', undefined),
      operation: new Operation(),
    });
  return { asked, stand };
}

test('a guest is mapped before it is asked to suspend, and brought up to date after', async () => {
  const { asked, stand } = scene();
  const still = await stand();
  assert.deepEqual(asked, ['ready', 'config', 'open', 'suspend', 'catchUp', 'geometry', 'state']);
  await still.release();
  assert.equal(asked.at(-1), 'close');
});

for (const failing of steps)
  test(`where ${failing} fails nothing stays mapped, and the error says how the guest is`, async () => {
    const { asked, stand } = scene(failing);
    const stood = steps.indexOf(failing) > steps.indexOf('suspend');
    await assert.rejects(stand(), (thrown) => {
      assert.ok(thrown instanceof DormouseError);
      assert.deepEqual([thrown.message, thrown.guest], [`no ${failing}`, stood ? 'resumed' : 'untouched']);
      return true;
    });
    const opened = failing === 'open' ? 0 : 1;
    assert.equal(asked.filter((what) => what === 'close').length, opened);
    assert.equal(asked.includes('suspend'), stood || failing === 'suspend');
  });

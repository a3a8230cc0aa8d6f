/** Asking a guest of Xen's to suspend, over a xenstore whose transactions take a while. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { XenNative } from '../../src/host/xen/native.js';
import { suspendGuest } from '../../src/host/xen/suspend.js';
import type { XenXenstore } from '../../src/host/xen/xenstore.js';

const asked = '/local/domain/7/dormouse/suspend';
const control = '/local/domain/7/control/shutdown';

interface Tx {
  read(path: string): Promise<string | null>;
  write(path: string, value: string): Promise<void>;
  remove(path: string): Promise<void>;
}

/** What is written shows once the transaction has ended, 20 ms later. */
function slowStore(nodes: Map<string, string>): XenXenstore {
  const transaction = async <T>(body: (tx: Tx) => Promise<T>): Promise<T> => {
    const changed = new Map<string, string | null>();
    const result = await body({
      read: (path) => Promise.resolve(changed.get(path) ?? nodes.get(path) ?? null),
      write: (path, value) => Promise.resolve(void changed.set(path, value)),
      remove: (path) => Promise.resolve(void changed.set(path, null)),
    });
    await sleep(20);
    for (const [path, value] of changed)
      if (value === null) nodes.delete(path);
      else nodes.set(path, value);
    return result;
  };
  return { transaction } as unknown as XenXenstore;
}

const running = { domain: () => ({ flags: 0 }) } as unknown as XenNative;

test('a request that is not taken in time is withdrawn as if it had never been made', async () => {
  const nodes = new Map<string, string>();
  const wait = { api: running, domid: 7, isHeld: () => true, whole: (ask: () => Promise<void>) => ask() };
  await assert.rejects(suspendGuest(wait, slowStore(nodes), 'abcd', 30), {
    code: 'SUSPEND_TIMEOUT',
    guest: 'untouched',
  });
  assert.deepEqual([...nodes], [[control, '']]);
});

test('a lease that ends while it is asked finds the request made', async () => {
  const nodes = new Map<string, string>();
  let held = true;
  let found: string | undefined;
  const whole = async (ask: () => Promise<void>): Promise<void> => {
    const asking = ask();
    held = false;
    await asking;
    found = nodes.get(asked);
  };
  const wait = { api: running, domid: 7, isHeld: () => held, whole };
  await assert.rejects(suspendGuest(wait, slowStore(nodes), 'abcd', 60_000), { code: 'CANCELLED' });
  assert.equal(found, 'abcd');
});

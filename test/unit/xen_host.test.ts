import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { domainType, hasFlag, shutdownReason, uuidOf } from '../../src/host/xen/domain_flags.js';
import { DormouseError } from '../../src/errors.js';
import { until } from '../support/hosts.js';
import { chooseRelease } from '../../src/host/xen/native.js';
import { XenXenstore } from '../../src/host/xen/xenstore.js';

const unavailable = (text: RegExp) => ({ code: 'HOST_UNAVAILABLE', message: text });

test('the addon is chosen by the release of the hypervisor, and what is missing is named', () => {
  assert.equal(chooseRelease(['4_17', '4_19'], '4_17'), '4_17');
  assert.throws(() => chooseRelease([], '4_17'), unavailable(/apt-get install libxen-dev/));
  assert.throws(
    () => chooseRelease([], null),
    unavailable(/^this machine does not run on Xen; .*apt-get install libxen-dev/),
  );
  assert.throws(() => chooseRelease(['4_17'], null), unavailable(/does not run on Xen/));
  assert.throws(() => chooseRelease(['4_17'], '4_18'), unavailable(/runs Xen 4\.18.*built for 4\.17/));
});

test('flags of a domain', () => {
  assert.equal(shutdownReason(0), null);
  assert.equal(shutdownReason(2 << 16), null);
  assert.equal(shutdownReason((2 << 16) | 4), 'suspend');
  assert.equal(shutdownReason((5 << 16) | 4), 'soft_reset');
  assert.equal(shutdownReason((200 << 16) | 4), 'crash');
  assert.ok(hasFlag(9, 'paused') && hasFlag(9, 'dying') && !hasFlag(9, 'running'));
  const handle = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  assert.equal(uuidOf(handle), '00112233-4455-6677-8899-aabbccddeeff');
});

test('what tells a PVH domain from an HVM one is what Xen emulates for it', () => {
  const [lapic, ioapic, usePirq, vpci, everything] = [1 << 0, 1 << 4, 1 << 9, 1 << 10, 0x1ff];
  const hvm = 1 << 1;
  assert.equal(domainType({ flags: 0, emulation: 0 }), 'pv');
  for (const emulation of [0, lapic, lapic | usePirq, lapic | ioapic | vpci])
    assert.equal(domainType({ flags: hvm, emulation }), 'pvh', String(emulation));
  for (const emulation of [everything, everything | usePirq, lapic | (1 << 2)])
    assert.equal(domainType({ flags: hvm, emulation }), 'hvm', String(emulation));
});

interface Message {
  readonly type: number;
  readonly id: number;
  readonly transaction: number;
  readonly payload: Buffer;
}

/** A xenstored that answers as `answer` says, one byte at a time. */
async function withXenstored(
  answer: (message: Message) => { type: number; payload: string }[],
  body: (store: XenXenstore, xenstored: { die: () => void; notices: string[] }) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-xs-'));
  const path = join(dir, 'socket');
  const sockets: Socket[] = [];
  const serve = (socket: Socket): void => {
    sockets.push(socket);
    let received = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 16 && received.length >= 16 + received.readUInt32LE(12)) {
        const length = received.readUInt32LE(12);
        const [type, id, transaction] = [0, 4, 8].map((at) => received.readUInt32LE(at)) as [
          number,
          number,
          number,
        ];
        const message = { type, id, transaction, payload: received.subarray(16, 16 + length) };
        received = received.subarray(16 + length);
        for (const { type: kind, payload } of answer(message)) {
          const header = Buffer.alloc(16);
          [kind, id, transaction, Buffer.byteLength(payload)].forEach((word, i) =>
            header.writeUInt32LE(word, 4 * i),
          );
          for (const byte of Buffer.concat([header, Buffer.from(payload)])) socket.write(Buffer.of(byte));
        }
      }
    });
  };
  const server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const old = process.env['XENSTORED_PATH'];
  process.env['XENSTORED_PATH'] = path;
  const notices: string[] = [];
  const store = await XenXenstore.open((text) => notices.push(text));
  try {
    await body(store, { notices, die: () => sockets.forEach((socket) => socket.destroy()) });
  } finally {
    store.close();
    if (old === undefined) delete process.env['XENSTORED_PATH'];
    else process.env['XENSTORED_PATH'] = old;
    await new Promise((resolve) => server.close(resolve));
    rmSync(dir, { recursive: true, force: true });
  }
}

test('xenstore: values, missing nodes, refusals', async () => {
  await withXenstored(
    ({ type, payload }) => {
      const path = payload.toString().split('\0')[0];
      if (path === '/missing') return [{ type: 16, payload: 'ENOENT\0' }];
      if (path === '/secret') return [{ type: 16, payload: 'EACCES\0' }];
      return [{ type, payload: type === 1 ? 'a\0b\0' : 'value' }];
    },
    async (store) => {
      assert.equal(await store.read('/a'), 'value');
      assert.deepEqual(await store.list('/a'), ['a', 'b']);
      assert.equal(await store.read('/missing'), null);
      assert.deepEqual(await store.list('/missing'), []);
      await assert.rejects(store.read('/secret'), { code: 'HOST_UNAVAILABLE', message: /\/secret: EACCES/ });
      await assert.rejects(store.write('/a', 'x'.repeat(5000)), { code: 'HOST_LACKS', message: /E2BIG/ });
    },
  );
});

test('xenstore: a transaction is tried again until it commits', async () => {
  let tries = 0;
  await withXenstored(
    ({ type, transaction }) => {
      if (type === 6) return [{ type, payload: `${++tries}\0` }];
      if (type === 7) return [tries < 3 ? { type: 16, payload: 'EAGAIN\0' } : { type, payload: 'OK\0' }];
      assert.equal(transaction, tries);
      return [{ type, payload: 'v' }];
    },
    async (store) => {
      assert.equal(await store.transaction((tx) => tx.read('/x')), 'v');
      assert.equal(tries, 3);
    },
  );
});

test('xenstore: a directory too large for one reply comes in parts', async () => {
  const names = Array.from({ length: 700 }, (_, i) => `name-${i}\0`).join('');
  await withXenstored(
    ({ type, payload }) => {
      if (type === 1) return [{ type: 16, payload: 'E2BIG\0' }];
      const offset = Number(payload.toString().split('\0')[1]);
      const part = names.slice(offset, offset + 2000);
      return [{ type, payload: `7\0${part}${offset + 2000 >= names.length ? '\0' : ''}` }];
    },
    async (store) => {
      assert.deepEqual(await store.list('/many'), names.split('\0').slice(0, -1));
    },
  );
});

test('xenstore: watch events reach their watcher', async () => {
  await withXenstored(
    ({ type, payload }) => {
      const [path, token] = payload.toString().split('\0');
      return [
        { type, payload: 'OK\0' },
        { type: 15, payload: `${path}\0${token}\0` },
      ];
    },
    async (store) => {
      const seen = await new Promise((resolve) => void store.watch('/w', resolve));
      assert.equal(seen, '/w');
    },
  );
});

/** Answers a watch, and tells of its path at once as xenstored does; anything else is never answered. */
const watching = ({ type, payload }: Message): { type: number; payload: string }[] =>
  type === 4
    ? [
        { type, payload: 'OK\0' },
        { type: 15, payload: payload.toString() },
      ]
    : [];

test('xenstore: who watches or waits is told once that xenstored died', async () => {
  await withXenstored(watching, async (store, xenstored) => {
    const told: string[] = [];
    await store.watch(
      '/a',
      () => undefined,
      ({ code, message }) => told.push(`${code} ${message}`),
    );
    const stop = await store.watch(
      '/b',
      () => undefined,
      () => told.push('of one that was given up'),
    );
    const answer = store.read('/never');
    void stop().catch(() => undefined);
    xenstored.die();
    const died = await answer.then(
      () => assert.fail('it was never answered'),
      (thrown: unknown) => thrown,
    );
    assert.ok(died instanceof DormouseError && died.code === 'HOST_UNAVAILABLE');
    assert.deepEqual(told, [`HOST_UNAVAILABLE ${died.message}`]);
    await assert.rejects(
      store.watch('/c', () => undefined),
      { code: 'HOST_UNAVAILABLE' },
    );
  });
});

test('xenstore: a watcher that throws costs the others nothing', async () => {
  await withXenstored(watching, async (store, { notices }) => {
    const seen: string[] = [];
    const bad = (): never => {
      throw new Error('a bug');
    };
    await store.watch('/bad', bad, bad);
    await store.watch('/good', (path) => seen.push(path));
    await until('it is called', 5000, () => seen.length > 0);
    assert.deepEqual([seen, notices], [['/good'], ['xenstore: a watch of /bad: a bug']]);
  });
});

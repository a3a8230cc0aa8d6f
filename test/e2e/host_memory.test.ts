import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { DormouseError, type ErrorCode } from '../../src/errors.js';
import { native } from '../../src/addon.js';
import type { DomainSpec } from '../../src/host/contract.js';
import { embedded } from '../../src/host/embedded/hypervisor.js';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import type { DomainState, MemoryGeometry } from '../../src/domain/state.js';
import type { MemoryHandle } from '../../src/handle.js';

const hasCode =
  (code: ErrorCode, text = /./) =>
  (thrown: unknown) =>
    thrown instanceof DormouseError && thrown.code === code && text.test(thrown.message);

const noBytes = Buffer.alloc(0);
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const geometryOf = (nrPfns: number): MemoryGeometry => ({
  nrPfns,
  guestWidth: 8,
  p2mFrames: [],
  p2mGeneration: 0,
});

function shellSpec(name: string, type: 'pv' | 'pvh', nrPfns: number, vcpus = 1): DomainSpec {
  return { name, uuid: randomUUID(), type, maxMemoryKib: nrPfns * 4, vcpus, config: '{"c_info":{}}' };
}

function stateOf(vcpus: DomainState['vcpus'], part: Partial<DomainState> = {}): DomainState {
  const none = { sharedInfo: noBytes, tscInfo: noBytes, cpuidPolicy: noBytes, msrPolicy: noBytes };
  return { vcpus, ...none, hvmContext: noBytes, hvmParams: noBytes, ...part };
}

test('a built domain has the frames it was given, and holds what was written', async (t) => {
  const host = await startTestHost(t);
  const { freeBytes } = await host.status();
  const { lease, builder } = await host.build(shellSpec('built', 'pv', 512));
  await assert.rejects(builder.populate([[0, 1]]), hasCode('RESTORE_FAILED', /outside/));
  await assert.rejects(builder.setGeometry(geometryOf(0)), hasCode('RESTORE_FAILED'));
  await builder.setGeometry(geometryOf(512));
  await builder.populate([
    [0, 100],
    [200, 56],
  ]);
  const frames = await builder.frames(range(512));
  assert.equal(new Set(frames.filter((mfn) => mfn !== null)).size, 156);
  assert.deepEqual(
    frames.flatMap((mfn, pfn) => (mfn === null ? [] : [pfn])),
    [...range(100), ...range(56).map((i) => i + 200)],
  );
  const taken: [number, number][] = [
    [300, 10],
    [99, 1],
  ];
  await assert.rejects(builder.populate(taken), hasCode('DOMAIN_WRONG_STATE'));
  for (const runs of [[[511, 2]], [[2 ** 52, 1]], [[0, 2 ** 52]]] as [number, number][][])
    await assert.rejects(builder.populate(runs), hasCode('RESTORE_FAILED', /outside/));
  assert.deepEqual(await builder.frames([300, 309]), [null, null], 'a refused run gives nothing');
  const memory = await builder.openMemory();
  const pages = randomBytes(2 * 4096);
  native(() => embedded().writePages(memory.handle, [5, 255], pages));
  assert.ok(native(() => embedded().readPages(memory.handle, [5, 255])).equals(pages));
  assert.ok(native(() => embedded().readPages(memory.handle, [6])).equals(Buffer.alloc(4096)));
  memory.close();
  memory.close();
  const rings = await builder.connectRings({ storePfn: 3, consolePfn: 4 });
  assert.notEqual(rings.storePort, rings.consolePort);
  assert.equal(await host.xenstore.read(`/local/domain/${builder.domid}/store/ring-ref`), String(frames[3]));
  await assert.rejects(builder.connectRings({ storePfn: 3, consolePfn: 400 }), hasCode('RESTORE_FAILED'));
  await lease.release();
  assert.deepEqual(await host.list(), []);
  assert.equal((await host.status()).freeBytes, freeBytes);
});

test('populating more than there is gives nothing', async (t) => {
  const host = await startTestHost(t, { memoryMib: 16 });
  const { freeBytes } = await host.status();
  const nrPfns = 8192;
  const { lease, builder } = await host.build(shellSpec('large', 'pv', nrPfns));
  await builder.setGeometry(geometryOf(nrPfns));
  await assert.rejects(builder.populate([[0, nrPfns]]), hasCode('NO_MEMORY'));
  assert.deepEqual(await builder.frames([0, nrPfns - 1]), [null, null]);
  await lease.release();
  assert.equal((await host.status()).freeBytes, freeBytes);
});

test('page tables are validated before they are pinned', async (t) => {
  const host = await startTestHost(t);
  const { builder } = await host.build(shellSpec('tables', 'pv', 512));
  await builder.setGeometry(geometryOf(512));
  await builder.populate([[0, 64]]);
  const [own] = await builder.frames([9]);
  const memory = await builder.openMemory();
  const table = (mfn: bigint): Buffer => {
    const page = Buffer.alloc(4096);
    page.writeBigUInt64LE((mfn << 12n) | 5n, 8 * 17);
    return page;
  };
  const foreign = BigInt((await host.status()).memoryBytes / 4096 + 5);
  native(() =>
    embedded().writePages(memory.handle, [1, 2], Buffer.concat([table(BigInt(own ?? 0)), table(foreign)])),
  );
  await builder.pin([{ pfn: 1, level: 1 }]);
  await assert.rejects(builder.pin([{ pfn: 2, level: 1 }]), (thrown) => {
    assert.ok(hasCode('PAGE_TABLE_INVALID')(thrown), String(thrown));
    assert.equal((thrown as DormouseError).place.pfn, 2);
    return true;
  });
  await assert.rejects(builder.pin([{ pfn: 512, level: 1 }]), hasCode('RESTORE_FAILED', /outside/));
});

test('state that does not fit the domain is refused', async (t) => {
  const host = await startTestHost(t);
  const { builder } = await host.build(shellSpec('wrong', 'pv', 512));
  await builder.setGeometry(geometryOf(512));
  const vcpu = { id: 0, basic: Buffer.alloc(5168), extended: noBytes, xsave: noBytes, msrs: noBytes };
  const sharedInfo = Buffer.alloc(4096);
  const bad = [
    stateOf([{ ...vcpu, id: 1 }], { sharedInfo }),
    stateOf([vcpu, vcpu], { sharedInfo }),
    stateOf([{ ...vcpu, basic: Buffer.alloc(5167) }], { sharedInfo }),
    stateOf([vcpu]),
  ];
  for (const state of bad) await assert.rejects(builder.setState(state), hasCode('RESTORE_FAILED'));
});

test('a domain of another kind is held, and its state comes back as it was given', async (t) => {
  const host = await startTestHost(t);
  const { lease, builder } = await host.build(shellSpec('pvh', 'pvh', 1024, 2));
  await builder.setGeometry({ nrPfns: 1024, guestWidth: 0, p2mFrames: [], p2mGeneration: 0 });
  await builder.populate([[0, 1024]]);
  const given = stateOf([], {
    hvmContext: randomBytes(8000),
    hvmParams: randomBytes(160),
    tscInfo: randomBytes(24),
    cpuidPolicy: randomBytes(100),
    msrPolicy: randomBytes(60),
  });
  await builder.setState(given);
  await builder.finish();
  await assert.rejects(builder.populate([[0, 1]]), hasCode('DOMAIN_WRONG_STATE'));
  await lease.release();
  const info = await host.find('pvh');
  assert.deepEqual([info.type, info.paused, info.building, info.vcpus], ['pvh', true, false, 2]);
  assert.deepEqual(await host.readState(info.domid), given);
  await assert.rejects(host.unpause(info.domid), hasCode('HOST_LACKS'));
  assert.equal((await host.find('pvh')).paused, true);
  assert.equal(await host.config(info.domid), '{"c_info":{}}');
});

test('a snapshot does not change while its guest does', async (t) => {
  const host = await startTestHost(t);
  const config = { program: 'writer', rate: 20_000 } as const;
  const domid = await host.create(guestSpec('web1', config, { vcpus: 2 }), { paused: false });
  const live = await host.openMemory(domid);
  const lease = await host.acquire(domid, 'checkpoint');
  const snapshot = await host.snapshot(lease);
  assert.deepEqual([live.kind, snapshot.memory.kind, snapshot.geometry.nrPfns], ['live', 'snapshot', 2048]);
  assert.deepEqual(
    snapshot.state.vcpus.map(({ basic }) => basic.length),
    [5168, 5168],
  );
  t.diagnostic(`pause ${snapshot.pauseNs / 1000} us`);
  const read = (handle: MemoryHandle) =>
    Buffer.concat(
      [0, 1024].map((first) =>
        native(() =>
          embedded().readPages(
            handle,
            range(1024).map((i) => i + first),
          ),
        ),
      ),
    );
  const first = read(snapshot.memory.handle);
  await until('the guest changes its memory', 3000, () => !read(live.handle).equals(first));
  assert.ok(read(snapshot.memory.handle).equals(first));
  assert.ok((await snapshot.cowPages()) > 0);
  await assert.rejects(host.snapshot(lease), hasCode('DOMAIN_WRONG_STATE'));
  await snapshot.release();
  await snapshot.release();
  assert.equal((await host.status()).snapshots, 0);
  await (await host.snapshot(lease, { readOnce: true })).release();
  await lease.release();
});

test('the tracker marks what was written, and forgets it when asked', async (t) => {
  const host = await startTestHost(t);
  const config = { program: 'writer', rate: 5000, workingSetPages: 64 } as const;
  const domid = await host.create(guestSpec('web1', config), { paused: true });
  const lease = await host.acquire(domid, 'save');
  const tracker = await host.tracker(lease);
  await assert.rejects(host.tracker(lease), hasCode('DOMAIN_WRONG_STATE'));
  const bits = (bitmap: Buffer) =>
    [...bitmap].reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0);
  assert.equal(bits(await tracker.peek()), 0);
  await host.unpause(domid);
  await until('pages are dirty', 3000, async () => bits(await tracker.peek()) > 10);
  await host.pause(domid);
  const dirty = await tracker.readAndClear();
  assert.ok(bits(dirty) > 10);
  assert.equal(bits(await tracker.peek()), 0);
  await tracker.off();
  await tracker.off();
  await lease.release();
});

test('a view cannot be had of a domain that is gone, nor of a host that is', async (t) => {
  const host = await startTestHost(t);
  const domid = await host.create(guestSpec('web1'), { paused: false });
  const other = await openEmbeddedHost('test');
  await other.destroy(domid);
  await assert.rejects(host.openMemory(domid), hasCode('DOMAIN_NOT_FOUND'));
  process.kill((await host.status()).pid, 'SIGKILL');
  await assert.rejects(host.openMemory(domid), hasCode('HOST_DIED'));
  await other.close();
});

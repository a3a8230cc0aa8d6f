/** Images that are damaged, or not of the domain: a typed error, and the guest has not noticed. */
import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { DormouseError } from '../../src/errors.js';
import type { Capabilities } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import type { Manifest } from '../../src/image/manifest.js';
import { ImageReader } from '../../src/image/reader.js';
import { rollback } from '../../src/rollback/rollback.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest, finalDigest, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { random, tempDir, type TestPage, writeImage } from '../support/images.js';

const seed = Number(process.env.DORMOUSE_ROLLBACK_SEED ?? Date.now() % 1_000_000_000);
const plan: GuestPlan = { program: 'writer', vcpus: 2, seed: 91, steps: 6000, rate: 1500, memoryMib: 8 };

interface Stage {
  readonly host: EmbeddedHost;
  readonly at: (name: string) => string;
  readonly untouched: string;
}

/** A running guest with two points: `full`, and `more`, an increment of it. */
async function setUp(t: TestContext): Promise<Stage> {
  const host = await startTestHost(t, { memoryMib: 256 });
  t.after(closeWorkers);
  const dir = tempDir(t);
  const at = (name: string): string => join(dir, name);
  const untouched = await untouchedDigest(host, plan);
  await bootGuest(host, 'guest', plan);
  await sleep(30);
  await checkpoint(host, 'guest', at('full'), { mode: 'light' });
  await sleep(60);
  await checkpoint(host, 'guest', at('more'), { mode: 'light', incrementalFrom: at('full') });
  return { host, at, untouched };
}

const progress = async (host: EmbeddedHost): Promise<number> => {
  const { domid } = await host.find('guest');
  return (await host.progress(domid)).steps.reduce((sum, done) => sum + done, 0);
};

/** The error, after which the guest is where it was and runs. */
async function refused(host: EmbeddedHost, image: string): Promise<DormouseError> {
  const before = await progress(host);
  const error = await rollback(host, 'guest', image).then(
    () => assert.fail('it went back'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof DormouseError, String(error));
  assert.ok(['untouched', 'none'].includes(error.guest), `${error.code}: ${error.guest}`);
  const { paused, building, shutdown } = await host.find('guest');
  assert.deepEqual([paused, building, shutdown], [false, false, null]);
  assert.ok((await progress(host)) >= before, 'it went back all the same');
  assert.deepEqual((await host.status()).leases, []);
  return error;
}

test('bits that flip anywhere in the image or in its parent', async (t) => {
  const { host, at, untouched } = await setUp(t);
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  const codes = new Map<string, number>();
  for (let i = 0; i < 80; i++) {
    const path = at(i % 2 === 0 ? 'more' : 'full');
    const whole = readFileSync(path);
    const bytes = Buffer.from(whole);
    const offset = next(bytes.length);
    bytes.writeUInt8(bytes.readUInt8(offset) ^ (1 << next(8)), offset);
    writeFileSync(path, bytes);
    const before = await progress(host);
    try {
      await rollback(host, 'guest', at('more'));
      // Bytes between chunks, and chunks of the parent that are in no page of the image, are not read.
      codes.set('not read', (codes.get('not read') ?? 0) + 1);
    } catch (thrown) {
      assert.ok(thrown instanceof DormouseError, String(thrown));
      assert.ok(/^IMAGE_/.test(thrown.code), `offset ${offset}: ${thrown.code}: ${thrown.message}`);
      assert.equal(thrown.guest, 'untouched');
      assert.ok((await progress(host)) >= before);
      codes.set(thrown.code, (codes.get(thrown.code) ?? 0) + 1);
    }
    assert.equal((await host.find('guest')).paused, false);
    writeFileSync(path, whole);
  }
  t.diagnostic([...codes].map(([code, n]) => `${code} ${n}`).join(', '));
  assert.ok((codes.get('IMAGE_DAMAGED') ?? 0) >= 20);
  assert.equal(await finalDigest(host, 'guest', plan), untouched);
});

test('a parent that is missing, and another one under its name', async (t) => {
  const { host, at, untouched } = await setUp(t);
  renameSync(at('full'), at('away'));
  await refused(host, at('more'));
  await checkpoint(host, 'guest', at('full'), { mode: 'light' });
  assert.equal((await refused(host, at('more'))).code, 'IMAGE_INCOMPATIBLE');
  assert.equal((await refused(host, at('nothing'))).code, 'IMAGE_NOT_FOUND');
  assert.equal(await finalDigest(host, 'guest', plan), untouched);
});

/** The pages of an image, and all else that is in it. */
async function contentOf(path: string): Promise<{ pages: TestPage[]; manifest: Manifest }> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  const pages = Array.from({ length: reader.nrPfns }, (_, pfn) => {
    const { pageClass, type } = reader.pageEntry(pfn);
    const hasBody = pageClass === 'data' || pageClass === 'table';
    return { pfn, pageClass, type, body: hasBody ? reader.readPages([pfn]) : null };
  });
  reader.close();
  return { pages, manifest: reader.manifest };
}

/** Whole by all its checksums, and wrong by what it says. */
const lies: Readonly<
  Record<string, (content: { pages: TestPage[]; manifest: Manifest }) => Partial<Manifest>>
> = {
  'a table that leads beyond the domain': ({ pages }) => {
    const table = pages.find(({ type }) => (type & 7) === 1 && type < 13);
    table?.body?.writeBigUInt64LE((BigInt(pages.length) << 12n) | 0x67n, 8);
    return {};
  },
  'a table of superpages': ({ pages }) => {
    const table = pages.find(({ type }) => (type & 7) === 2 && type < 13);
    table?.body?.writeBigUInt64LE(0x10e7n, 0);
    return {};
  },
  'a register that names no page': ({ manifest: { state } }) => {
    const [first] = state.vcpus;
    first?.basic.writeBigUInt64LE(0xffff_ffffn << 12n, 4984 + 3 * 8);
    return { state };
  },
  'start info beyond the domain': ({ manifest: { state } }) => {
    state.vcpus[0]?.basic.writeBigUInt64LE(1n << 40n, 616);
    return { state };
  },
  'a leaf of the p2m beyond the domain': ({ manifest: { geometry } }) => ({
    geometry: { ...geometry, p2mFrames: [geometry.nrPfns] },
  }),
};

test('images whose checksums hold and whose words do not', async (t) => {
  const { host, at, untouched } = await setUp(t);
  for (const [what, lie] of Object.entries(lies)) {
    const content = await contentOf(at('full'));
    const changed = lie(content);
    const { pages, manifest } = content;
    const path = at(what.replaceAll(' ', '-'));
    await writeImage(path, pages.length, [pages], {}, { ...manifest, ...changed, pages: manifest.pages });
    const { code, message } = await refused(host, path);
    assert.equal(code, 'IMAGE_DAMAGED', `${what}: ${message}`);
  }
  assert.equal(await finalDigest(host, 'guest', plan), untouched);
});

test('an image of another domain, host, type, size or moment', async (t) => {
  const { host, at, untouched } = await setUp(t);
  const { pages, manifest } = await contentOf(at('full'));
  const { domain } = manifest;
  const others: Readonly<Record<string, Partial<Manifest>>> = {
    uuid: { domain: { ...domain, uuid: '01234567-89ab-cdef-0123-456789abcdef' } },
    host: { hostKind: 'xen' },
    vcpus: { domain: { ...domain, vcpus: 3 } },
    type: { domain: { ...domain, type: 'pvh' } },
    hvm: { domain: { ...domain, type: 'hvm' } },
  };
  for (const [what, other] of Object.entries(others)) {
    await writeImage(at(what), pages.length, [pages], {}, { ...manifest, ...other });
    assert.equal((await refused(host, at(what))).code, 'IMAGE_INCOMPATIBLE', what);
  }
  const larger = [...pages, { pfn: pages.length, pageClass: 'noFrame' as const, type: 15, body: null }];
  const geometry = { ...manifest.geometry, nrPfns: larger.length };
  const counts = { ...manifest.pages, noFrame: manifest.pages.noFrame + 1 };
  await writeImage(at('larger'), larger.length, [larger], {}, { ...manifest, geometry, pages: counts });
  assert.equal((await refused(host, at('larger'))).code, 'IMAGE_INCOMPATIBLE');
  await writeImage(
    at('paused'),
    pages.length,
    [pages],
    { consistency: 'paused' },
    { ...manifest, consistency: 'paused' },
  );
  assert.equal((await refused(host, at('paused'))).code, 'IMAGE_NOT_RESTORABLE');
  assert.equal(await finalDigest(host, 'guest', plan), untouched);
});

test('a host without rewrite says so, whatever the image', async (t) => {
  const { host, at } = await setUp(t);
  const reason = 'rewrite: hidden by the test';
  const without = new Proxy<EmbeddedHost>(host, {
    get: (_, name) => {
      if (name === 'capabilities')
        return async (): Promise<Capabilities> => ({ ...(await host.capabilities()), rewrite: reason });
      const own: unknown = Reflect.get(host, name, host);
      return typeof own === 'function' ? (own as () => unknown).bind(host) : own;
    },
  });
  await assert.rejects(rollback(without, 'guest', at('nothing')), {
    code: 'HOST_LACKS',
    message: `a rollback needs rewrite: ${reason}`,
  });
});

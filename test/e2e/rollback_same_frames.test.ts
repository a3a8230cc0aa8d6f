/**
 * What `rollback` writes into a domain whose frames stay where they are, as on Xen: held page by page against the image. Nothing of
 * it runs afterwards.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { asDormouseError } from '../../src/errors.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { CHUNK_HEADER, CHUNK_KIND_DELTAS } from '../../src/image/format.js';
import { inspectImage } from '../../src/image/inspect.js';
import { ImageReader } from '../../src/image/reader.js';
import { PointSession } from '../../src/protect/point_session.js';
import { Difference } from '../../src/rollback/difference.js';
import { PointStore } from '../../src/store/store.js';
import { closeWorkers, laneCount } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const plan: GuestPlan = { program: 'writer', vcpus: 2, seed: 5, steps: 4000, rate: 2000, memoryMib: 16 };

/** The third of three points. */
async function pointOfDeltas(host: EmbeddedHost, dir: string): Promise<string> {
  const session = await PointSession.open(host, 'guest', await PointStore.open(dir, { create: true }));
  let path = '';
  try {
    for (let i = 0; i < 3; i++) {
      await sleep(30);
      ({ path } = await session.take({ mode: 'light', reason: 'protect', deltas: true }));
    }
  } finally {
    await session.end();
  }
  assert.ok((await inspectImage(path)).chunks.ofDeltas > 0);
  return path;
}

/** A guest that has run on since its image, and is paused; its pages of data and zeroes that are not as in the image. */
async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; domid: number; reader: ImageReader }> {
  const host = await startTestHost(t, { memoryMib: 256 });
  t.after(closeWorkers);
  const domid = await bootGuest(host, 'guest', plan);
  const path = await pointOfDeltas(host, tempDir(t));
  await sleep(60);
  const reader = await ImageReader.open(path, { lanes: laneCount });
  t.after(() => {
    reader.close();
  });
  return { host, domid, reader };
}

/** Pfns of plain pages, with what the image has in them. */
function plainPages(reader: ImageReader): Map<number, Buffer> {
  const leaves = new Set(reader.manifest.geometry.p2mFrames);
  const pages = new Map<number, Buffer>();
  for (let pfn = 0; pfn < reader.nrPfns; pfn++) {
    const { pageClass } = reader.pageEntry(pfn);
    if (leaves.has(pfn) || !['data', 'zero'].includes(pageClass)) continue;
    pages.set(pfn, pageClass === 'data' ? Buffer.from(reader.readPages([pfn])) : Buffer.alloc(4096));
  }
  return pages;
}

const pageNow = (memory: Parameters<ReturnType<typeof steps>['readPages']>[0], pfn: number): Buffer =>
  Buffer.from(steps().readPages(memory, BigUint64Array.of(BigInt(pfn))));

/** Whether the image's own file has the page as a delta. */
function isDelta(reader: ImageReader, pfn: number): boolean {
  const { chunk } = reader.pageEntry(pfn);
  const { source, offset } = chunk < 0 ? { source: -1, offset: 0 } : reader.chunk(chunk);
  return source === 0 && readFileSync(reader.path)[offset + CHUNK_HEADER.kind[0]] === CHUNK_KIND_DELTAS;
}

/** As one of a domain so small that next to nothing of it is kept ahead. */
const unkept = (reader: ImageReader): ImageReader =>
  new Proxy(reader, {
    get: (target, name) => (name === 'nrPfns' ? 3 : (Reflect.get(target, name, target) as unknown)),
  });

for (const found of ['compared', 'suspected', 'not kept'] as const)
  test(`pages that were ${found} are put back, and those that are left alone are not`, async (t) => {
    const { host, domid, reader } = await setUp(t);
    const lease = await host.acquire(domid, 'rollback');
    await host.holdPaused(lease);
    const view = await host.openToRewrite(domid);
    const then = plainPages(reader);
    const other = [...then]
      .filter(([pfn, page]) => !pageNow(view.handle, pfn).equals(page))
      .map(([pfn]) => pfn);
    assert.ok(other.length > 20, `${other.length} pages differ`);
    // What is not kept is looked for where the pages are that its deltas rest on, and nowhere else.
    const alone = other.filter((pfn, i) => (found === 'not kept' ? !isDelta(reader, pfn) : i % 7 === 0));
    assert.ok(alone.length < other.length);
    const kept = new Map(alone.map((pfn) => [pfn, pageNow(view.handle, pfn)]));
    const difference = new Difference(found === 'not kept' ? unkept(reader) : reader, view.handle, {
      alonePfns: alone,
    });
    difference.look();
    await difference.compare({});
    if (found === 'suspected') await difference.settle(null, {});
    difference.plan(true);
    const rewriter = await host.rewrite(lease);
    await rewriter.setGeometry(reader.manifest.geometry);
    await rewriter.populate(reader.frameRuns());
    await difference.write();
    for (const [pfn, page] of then)
      assert.ok(pageNow(view.handle, pfn).equals(kept.get(pfn) ?? page), `pfn ${pfn}`);
    difference.close();
    view.close();
    await lease.release();
  });

test('another p2m than the image has means other frames: refused before anything is written', async (t) => {
  const { host, domid, reader } = await setUp(t);
  const lease = await host.acquire(domid, 'rollback');
  await host.holdPaused(lease);
  const view = await host.openToRewrite(domid);
  const then = plainPages(reader);
  const other = [...then].find(([pfn, page]) => !pageNow(view.handle, pfn).equals(page))?.[0] ?? 0;
  const same = [...then].find(([pfn, page]) => pageNow(view.handle, pfn).equals(page))?.[0] ?? 0;
  for (const [leaf, refused] of [
    [other, true],
    [same, false],
  ] as const) {
    // Any page does for a leaf here: it is held against what it was.
    const manifest = { ...reader.manifest, geometry: { ...reader.manifest.geometry, p2mFrames: [leaf] } };
    const claims = new Proxy(reader, {
      get: (target, name) =>
        name === 'manifest' ? manifest : (Reflect.get(target, name, target) as unknown),
    });
    const difference = new Difference(claims, view.handle, { alonePfns: [] });
    difference.look();
    await difference.compare({});
    const planned = (): string => {
      try {
        difference.plan(true);
        return 'planned';
      } catch (thrown) {
        return asDormouseError(thrown).code;
      }
    };
    assert.equal(planned(), refused ? 'HOST_LACKS' : 'planned');
    difference.close();
  }
  view.close();
  await lease.release();
});

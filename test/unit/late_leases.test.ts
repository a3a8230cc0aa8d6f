/** Leases of images of points that were forgotten before: whoever reads such a point finds that out, and nobody takes it for damage. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import { DomainPoints } from '../../src/store/domain_points.js';
import type { Descent } from '../../src/store/lineage.js';
import { MemoryShelf, Things } from '../support/memory_shelf.js';
import { descentOf, recordOf, uuid } from '../support/point_records.js';

const ids = ['20260101-000000.000', '20260101-000000.001', '20260101-000000.002'] as const;
const imageOf = (id: string): string => `${id}.dmi`;

/** Three points, each built on the one before. */
async function chain() {
  const things = new Things();
  const descent = (name: string): Descent | null => things.get(`${uuid}/images/${name}`)?.descent ?? null;
  const by = (actor: string): DomainPoints =>
    new DomainPoints(new MemoryShelf(things, () => undefined), uuid, {
      holder: { name: actor, isDead: () => false },
      readDescent: (name) => Promise.resolve(descent(name)),
    });
  const shelf = new MemoryShelf(things, () => undefined);
  let before: Descent['needs'] = [];
  for (const id of ids) {
    const own = descentOf(id, [...before], before.length === 0 ? 'full' : 'changes');
    await shelf.putImage(`${uuid}/images/${imageOf(id)}`, { bytes: Buffer.alloc(1), descent: own });
    await by('writer').publish(recordOf(id, imageOf(id), own, { kind: 'none' }));
    before = [{ name: imageOf(id), imageId: own.imageId, root: own.root }];
  }
  return { things, shelf, by };
}

test('an image whose ancestors went with their points is leased too late', async () => {
  const { shelf, by } = await chain();
  const reader = by('reader').lease();
  await by('other').forget(ids.slice(0, 2));
  await shelf.delete(`${uuid}/points/${ids[2]}`);
  await shelf.delete(`${uuid}/images/${imageOf(ids[0])}`);
  await reader.hold([imageOf(ids[1])]);
  const { removed } = await by('collector').collect();
  assert.deepEqual(removed, [imageOf(ids[2])], 'what is leased stays');
  await reader.drop();
  assert.deepEqual((await by('collector').collect()).removed, [imageOf(ids[1])]);
});

test('what a tool knew of images that went since is not what it goes by', async () => {
  const { shelf, by } = await chain();
  const collector = by('collector');
  await collector.needs(imageOf(ids[2]));
  await by('other').forget(ids);
  for (const id of ids) await shelf.delete(`${uuid}/images/${imageOf(id)}`);
  const reader = by('reader').lease();
  await reader.hold([imageOf(ids[2])]);
  assert.deepEqual((await collector.collect()).removed, []);
});

test('an image that a point needs and that is missing is damage, leased or not', async () => {
  const { shelf, by } = await chain();
  await shelf.delete(`${uuid}/images/${imageOf(ids[0])}`);
  await by('reader')
    .lease()
    .hold([imageOf(ids[2])]);
  await assert.rejects(by('collector').collect(), { code: 'STORE_DAMAGED', message: /is missing/u });
});

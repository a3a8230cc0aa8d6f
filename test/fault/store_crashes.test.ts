/**
 * A store in a folder whose file system dies, or fails, at each of its steps while points are taken and pruned. Whatever was told to
 * be there is there and can be read, what was not is there whole or not at all, and the next one to come leaves no orphan.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test, type TestContext } from 'node:test';
import { asDormouseError } from '../../src/errors.js';
import { DomainPoints } from '../../src/store/domain_points.js';
import { FolderShelf } from '../../src/store/folder_shelf.js';
import type { Descent } from '../../src/store/lineage.js';
import { Dice } from '../support/dice.js';
import { descentOf, recordOf, uuid } from '../support/point_records.js';
import { Crash, SimulatedFiles, type AtStep } from '../support/simulated_files.js';

/** What the one who takes points was told. */
class Told {
  /** Taken, and nobody asked for it to go. */
  readonly there = new Set<string>();
  /** It may be there or not. */
  readonly unsure = new Set<string>();
}

class Stage {
  readonly files = new SimulatedFiles();
  readonly told = new Told();
  clock = Date.parse('2026-01-01T00:00:00.000Z');

  points(name: string): DomainPoints {
    const holder = { name, isDead: (other: string) => other === 'first' && name !== 'first' };
    const shelf = new FolderShelf('/store', this.files, holder);
    return new DomainPoints(shelf, uuid, { holder, readDescent: (image) => this.descent(image) });
  }

  async descent(image: string): Promise<Descent | null> {
    try {
      const bytes = await this.files.read(`/store/${uuid}/images/${image}`, 1 << 20);
      return JSON.parse(bytes.toString()) as Descent;
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw thrown;
    }
  }

  /** A point on `parent`, or a whole one. */
  async take(points: DomainPoints, parent: string | null): Promise<string> {
    const lease = points.lease();
    try {
      const begun = await points.begin(lease, this.clock++, parent);
      this.told.unsure.add(begun.id);
      const before = parent !== null && begun.parentStays ? await this.descent(parent) : null;
      const needs = before ? [{ name: parent ?? '', imageId: before.imageId, root: before.root }] : [];
      const descent = descentOf(begun.id, needs, before ? 'changes' : 'full');
      await this.files.writeUnnamed(begun.imagePath, Buffer.from(JSON.stringify(descent)));
      await points.publish(recordOf(begun.id, begun.imageName, descent));
      this.told.there.add(begun.id);
      return begun.imageName;
    } finally {
      await lease.drop().catch(() => undefined);
    }
  }

  async forget(points: DomainPoints, ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      this.told.there.delete(id);
      this.told.unsure.add(id);
    }
    await points.prune({ last: 100 }, { also: ids });
  }
}

/** A chain of three, of which the older two go; a chain of its own, of which the older one goes; then the first chain. */
async function script(stage: Stage): Promise<void> {
  const points = stage.points('first');
  let image: string | null = null;
  for (let i = 0; i < 3; i++) image = await stage.take(points, image);
  await stage.forget(points, (await points.ids()).slice(0, 2));
  image = await stage.take(points, null);
  await points.pin((await points.ids()).at(-1) ?? '');
  await stage.take(points, image);
  await stage.forget(points, (await points.ids()).slice(0, 1));
  await points.collect();
}

async function untilItFails(stage: Stage): Promise<void> {
  try {
    await script(stage);
  } catch (thrown) {
    if (thrown instanceof Crash) return;
    const { code } = asDormouseError(thrown);
    assert.ok(
      ['NO_SPACE', 'IMAGE_WRITE_FAILED', 'IMAGE_READ_FAILED', 'STORE_DAMAGED', 'INTERNAL'].includes(code),
      code,
    );
    if (code === 'INTERNAL') assert.match(String(thrown), /EIO|ENOSPC/u, 'an error of another kind');
  }
}

async function checkAfter({ files, told, ...stage }: Stage, points: DomainPoints): Promise<void> {
  const { removed } = await points.collect();
  assert.ok(removed.length <= 5);
  const ids = (await points.list()).map(({ id }) => id);
  for (const id of told.there) assert.ok(ids.includes(id), `${id} was told to be there`);
  for (const id of ids) assert.ok(told.there.has(id) || told.unsure.has(id), `${id} comes from nowhere`);
  const needed = new Set<string>();
  for (const id of ids) for (const name of await points.needs(`${id}.dmi`)) needed.add(name);
  const paths = files.paths();
  const images = paths.filter((path) => path.includes('/images/')).map((path) => path.split('/').at(-1));
  assert.deepEqual(images.sort(), [...needed].sort(), 'orphans, or points without their images');
  const left = paths.filter((path) => /\/\.|\/(?:leases|leaving|tombstones)\//u.test(path));
  assert.deepEqual(left, [], 'what nobody needs');
  assert.ok(stage.clock > 0);
}

/** How many steps there are, and each of them gone wrong. */
async function eachStep(wrong: (at: number) => AtStep, powerLoss: Dice | null): Promise<number> {
  const whole = new Stage();
  await prepare(whole);
  const before = whole.files.steps;
  await script(whole);
  const last = whole.files.steps;
  for (let at = before + 1; at <= last; at++) {
    const stage = new Stage();
    await prepare(stage);
    stage.files.atStep = wrong(at);
    await untilItFails(stage);
    stage.files.revive(powerLoss);
    try {
      await checkAfter(stage, stage.points('next'));
      await stage.take(stage.points('next'), null);
    } catch (thrown) {
      throw new Error(`step ${at} of ${last}: ${(thrown as Error).stack}`, { cause: thrown });
    }
  }
  return last - before;
}

async function prepare(stage: Stage): Promise<void> {
  await stage.files.makeFolder('/store');
  await stage.files.syncFolder('/');
}

const at =
  (what: 'crash' | 'EIO' | 'ENOSPC', forEver = false) =>
  (step: number): AtStep =>
  (now) =>
    now === step || (forEver && now > step) ? what : 'go on';

test('killed at each step', async (t: TestContext) => {
  t.diagnostic(`${await eachStep(at('crash'), null)} cases`);
});

test('the power lost at each step, with what was not synced', async (t) => {
  const first = 1 + Math.floor(Math.random() * 1e9);
  t.diagnostic(`seed ${first}`);
  let cases = 0;
  for (let seed = first; seed < first + 12; seed++) cases += await eachStep(at('crash'), new Dice(seed));
  t.diagnostic(`${cases} cases`);
});

for (const what of ['EIO', 'ENOSPC'] as const)
  for (const forEver of [false, true])
    test(`${what} at each step${forEver ? ', and from then on' : ''}`, async (t) => {
      const cases = await eachStep(at(what, forEver), null);
      t.diagnostic(`${cases} cases`);
    });

/**
 * A store in a folder whose file system dies, or fails, at each of its steps while points are taken and pruned. Whatever was told to
 * be there is there and can be read, what was not is there whole or not at all, and the next one to come leaves no orphan.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test, type TestContext } from 'node:test';
import type { KeptDisk, KeptDisks } from '../../src/disks/kept.js';
import type { Run } from '../../src/disks/run.js';
import { asDormouseError, DormouseError } from '../../src/errors.js';
import { type BegunPoint, DomainPoints } from '../../src/store/domain_points.js';
import type { Holder } from '../../src/store/holder.js';
import { diskNameOf } from '../../src/store/names.js';
import { diskNamesOf, type PointRecord } from '../../src/store/record.js';
import { FolderShelf } from '../../src/store/folder_shelf.js';
import type { Descent } from '../../src/store/lineage.js';
import { Dice } from '../support/dice.js';
import { descentOf, flatImageOf, recordOf, uuid } from '../support/point_records.js';
import { Crash, SimulatedFiles, type AtStep } from '../support/simulated_files.js';

/** What the one who takes points was told. */
class Told {
  /** Taken, and nobody asked for it to go. */
  readonly there = new Set<string>();
  /** It may be there or not. */
  readonly unsure = new Set<string>();
  /** Points of which the domain goes on from one, `` for none; null once one of them was to go. */
  at: string[] | null = [''];
}

class Stage {
  readonly files = new SimulatedFiles();
  readonly told = new Told();
  readonly pinned = new Set<string>();
  /** Disks that a program keeps, where no store is. */
  readonly elsewhere = new Set<string>();
  clock = Date.parse('2026-01-01T00:00:00.000Z');

  points(name: string): DomainPoints {
    const holder = { name, isDead: (other: string) => other === 'first' && name !== 'first' };
    const keepers = { program: process.execPath, run: this.#keeper };
    return new DomainPoints(this.#shelf(holder), uuid, {
      ...{ holder, keepers, readDescent: (image: string) => this.descent(image) },
    });
  }

  #shelf(holder: Holder): FolderShelf {
    return new FolderShelf('/store', this.files, holder);
  }

  /** Begins, does it, and says so: it can be cut short between any two. */
  readonly #keeper: Run = (_program, [action = '', , , , where = '']) => {
    const step = (): void => {
      try {
        this.files.step();
      } catch (thrown) {
        if (thrown instanceof Crash) throw thrown;
        throw new DormouseError('COMMAND_FAILED', String(thrown));
      }
    };
    step();
    if (action === 'take') this.elsewhere.add(where);
    if (action === 'forget') this.elsewhere.delete(where);
    step();
    return '';
  };

  /** As a point session does: two disks, of which a program keeps a copy, or whose content is in the store; or none. */
  async takeDisks(points: DomainPoints, begun: BegunPoint, kind: DiskKind): Promise<KeptDisks> {
    const names = ['xvda', 'xvdb'];
    if (kind === 'none') return { kind };
    if (kind === 'command') {
      const way = { kind, program: process.execPath } as const;
      const disks = names.map(
        (name) => ({ name, path: process.execPath, kind: 'file', writable: true }) as const,
      );
      const taking = await points.takeDisks(begun, way, disks);
      try {
        await taking.ready();
        taking.take();
        return await taking.finish();
      } catch (thrown) {
        await taking.abandon().catch(() => undefined);
        throw thrown;
      }
    }
    const shelf = this.#shelf({ name: 'first', isDead: () => false });
    const disks: KeptDisk[] = [];
    for (const name of names) {
      const where = diskNameOf(begun.id, name, 'content');
      const file = await shelf.create(`${uuid}/disks/${where}`);
      this.files.write(file.path, contentOf(where));
      await file.publish();
      disks.push({ name, path: '/disk', bytes: contentOf(where).length, where });
    }
    return { kind, program: null, tookMs: 0, disks };
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
    const kind = diskKinds[this.clock % diskKinds.length] ?? 'none';
    const lease = points.lease();
    try {
      const begun = await points.begin(lease, this.clock++, parent);
      this.told.unsure.add(begun.id);
      this.told.at?.push(begun.id);
      const before = parent !== null && begun.parentStays ? await this.descent(parent) : null;
      const needs = before ? [{ name: parent ?? '', imageId: before.imageId, root: before.root }] : [];
      const disks = await this.takeDisks(points, begun, kind);
      const descent = descentOf(begun.id, needs, before ? 'changes' : 'full');
      await this.files.writeUnnamed(begun.imagePath, Buffer.from(JSON.stringify(descent)));
      await points.publish(recordOf(begun.id, begun.imageName, descent, disks));
      this.told.there.add(begun.id);
      this.told.at = [begun.id];
      return begun.imageName;
    } finally {
      await lease.drop().catch(() => undefined);
    }
  }

  /** A flattened point stays what it was told to be. */
  async flatten(points: DomainPoints, id: string): Promise<void> {
    await points.flatten(id, async (from, to, record) => {
      assert.ok(await this.descent(from.split('/').at(-1) ?? ''));
      const descent = descentOf(to, [], 'full');
      await this.files.writeUnnamed(to, Buffer.from(JSON.stringify(descent)));
      return flatImageOf(record, descent);
    });
  }

  async goBack(points: DomainPoints, id: string): Promise<void> {
    this.told.at?.push(id);
    await points.wentBack(id, this.clock++);
    this.told.at = [id];
  }

  /** From when that returns it stays, whatever goes. */
  async pin(points: DomainPoints, id: string): Promise<void> {
    await points.pin(id);
    this.pinned.add(id);
  }

  async forget(points: DomainPoints, ids: readonly string[]): Promise<void> {
    for (const id of ids.filter((one) => !this.pinned.has(one))) {
      this.told.there.delete(id);
      if (this.told.at?.includes(id)) this.told.at = null;
      this.told.unsure.add(id);
    }
    await points.prune({ last: 100 }, { also: ids });
  }
}

const diskKinds = ['none', 'command', 'reflink'] as const;
type DiskKind = (typeof diskKinds)[number];
const contentOf = (where: string): Buffer => Buffer.from(`all of ${where}`);

type History = (stage: Stage) => Promise<void>;

/** A chain of three, of which the last is flattened and the older two go; a chain of its own, of which the older one goes; then the first chain. */
async function script(stage: Stage): Promise<void> {
  const points = stage.points('first');
  let image: string | null = null;
  for (let i = 0; i < 3; i++) image = await stage.take(points, image);
  await stage.flatten(points, (await points.ids()).at(-1) ?? '');
  await stage.forget(points, (await points.ids()).slice(0, 2));
  image = await stage.take(points, null);
  await stage.pin(points, (await points.ids()).at(-1) ?? '');
  await stage.take(points, image);
  await stage.forget(points, (await points.ids()).slice(0, 1));
  await points.collect();
}

/** Points on the last one, on one that the domain was taken back to, and whole ones; some are pinned or flattened, some go; sessions come and go. */
function randomHistory(seed: number): History {
  return async (stage) => {
    const dice = new Dice(seed);
    let points = stage.points('first');
    for (let turns = 8 + dice.below(8); turns > 0; turns--) {
      const ids = await points.ids();
      const some = ids[dice.below(Math.max(1, ids.length))] ?? '';
      const what = dice.below(14);
      if (ids.length < 2 || what < 4) {
        const current = dice.below(4) === 0 ? null : await points.current();
        await stage.take(points, current?.image.name ?? null);
      } else if (what < 6) await stage.goBack(points, some);
      else if (what < 8) await stage.pin(points, some);
      else if (what < 11)
        await stage.forget(
          points,
          ids.filter(() => dice.below(3) === 0),
        );
      else if (what < 13) await stage.flatten(points, some);
      else points = stage.points('first');
    }
    await points.collect();
  };
}

async function untilItFails(stage: Stage, history: History): Promise<void> {
  try {
    await history(stage);
  } catch (thrown) {
    if (thrown instanceof Crash) return;
    const { code } = asDormouseError(thrown);
    assert.ok(
      [
        'NO_SPACE',
        'IMAGE_WRITE_FAILED',
        'IMAGE_READ_FAILED',
        'STORE_DAMAGED',
        'COMMAND_FAILED',
        'INTERNAL',
      ].includes(code),
      code,
    );
    if (code === 'INTERNAL') assert.match(String(thrown), /EIO|ENOSPC/u, 'an error of another kind');
  }
}

/** Each point has its disks, whole, and there is none that no point has. */
async function checkDisks(
  files: SimulatedFiles,
  elsewhere: ReadonlySet<string>,
  points: readonly PointRecord[],
): Promise<void> {
  const paths = files.paths().filter((path) => path.includes('/disks/'));
  const needed = points.flatMap(diskNamesOf);
  assert.deepEqual(
    paths.map((path) => path.split('/').at(-1)).sort(),
    needed.sort(),
    'disks of no point, or missing',
  );
  const kept = points.flatMap(({ disks }) => (disks.kind === 'command' ? disks.disks : []));
  assert.deepEqual([...elsewhere].sort(), kept.map(({ where }) => where).sort(), 'disks elsewhere');
  for (const path of paths.filter((name) => name.endsWith('.raw')))
    assert.deepEqual(await files.read(path, 1000), contentOf(path.split('/').at(-1) ?? ''));
}

async function checkAfter({ files, told, elsewhere, ...stage }: Stage, points: DomainPoints): Promise<void> {
  const { removed, removedDisks, stuck } = await points.collect();
  assert.ok(removed.length <= 5 && removedDisks.length <= 10);
  assert.deepEqual(stuck, []);
  const ids = (await points.list()).map(({ id }) => id);
  for (const id of told.there) assert.ok(ids.includes(id), `${id} was told to be there`);
  const current = (await points.current())?.id ?? '';
  assert.ok(told.at?.includes(current) ?? true, `it goes on from ${current}, not ${told.at?.join() ?? ''}`);
  for (const id of ids) assert.ok(told.there.has(id) || told.unsure.has(id), `${id} comes from nowhere`);
  const needed = new Set<string>();
  for (const { image } of await points.list())
    for (const name of await points.needs(image.name)) needed.add(name);
  const paths = files.paths();
  const images = paths.filter((path) => path.includes('/images/')).map((path) => path.split('/').at(-1));
  assert.deepEqual(images.sort(), [...needed].sort(), 'orphans, or points without their images');
  const flat = paths.filter((path) => path.includes('/flat/')).map((path) => path.split('/').at(-1) ?? '');
  for (const id of flat)
    assert.ok(id.startsWith('.') || ids.includes(id), `${id} went and is still called flat`);
  await checkDisks(files, elsewhere, await points.list());
  const left = paths.filter((path) => /\/\.|\/(?:leases|leaving|tombstones)\//u.test(path));
  assert.deepEqual(left, [], 'what nobody needs');
  assert.ok(stage.clock > 0);
}

/** How many steps there are, and each of them gone wrong. */
async function eachStep(
  wrong: (at: number) => AtStep,
  powerLoss: Dice | null,
  history: History = script,
): Promise<number> {
  const whole = new Stage();
  await prepare(whole);
  const before = whole.files.steps;
  await history(whole);
  const last = whole.files.steps;
  for (let at = before + 1; at <= last; at++) {
    const stage = new Stage();
    await prepare(stage);
    stage.files.atStep = wrong(at);
    await untilItFails(stage, history);
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

/** DORMOUSE_STORE_CASES, in whole histories. */
const mostCases = Number(process.env.DORMOUSE_STORE_CASES ?? 2000);

test(`random histories, ${mostCases} cases and more`, async (t) => {
  const first = Number(process.env.DORMOUSE_STORE_SEED ?? 1 + Math.floor(Math.random() * 1e9));
  t.diagnostic(`DORMOUSE_STORE_SEED=${first}`);
  let [cases, seed] = [0, first];
  for (; cases < mostCases; seed++) {
    const history = randomHistory(seed);
    const each = (wrong: (at: number) => AtStep, powerLoss: Dice | null = null): Promise<number> =>
      eachStep(wrong, powerLoss, history).catch((cause: unknown) => {
        throw new Error(`history ${seed}: ${(cause as Error).message}`, { cause });
      });
    cases += await each(at('crash'));
    for (let loss = 0; loss < 4; loss++) cases += await each(at('crash'), new Dice(seed * 4 + loss));
    for (const what of ['EIO', 'ENOSPC'] as const)
      for (const forEver of [false, true]) cases += await each(at(what, forEver));
  }
  t.diagnostic(`${cases} cases of ${seed - first} histories`);
});

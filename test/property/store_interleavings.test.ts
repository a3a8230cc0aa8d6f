/**
 * A writer, two collectors, two who flatten, somebody who pins and one who reads, at one domain's points at once: every call they make is a turn, whose turn
 * it is is random, and each may die at any of its turns. No point that is published ever lacks an image or a disk that it needs; a point that was
 * pinned stays, and what is read for as long as it is read; and once the dead are known to be dead one collection leaves nothing that nobody needs.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import type { KeptDisks } from '../../src/disks/kept.js';
import { DormouseError } from '../../src/errors.js';
import { DomainPoints } from '../../src/store/domain_points.js';
import type { Descent } from '../../src/store/lineage.js';
import { diskNameOf } from '../../src/store/names.js';
import { Dice } from '../support/dice.js';
import { Crash, MemoryShelf, Things } from '../support/memory_shelf.js';
import { descentOf, flatImageOf, recordOf, uuid } from '../support/point_records.js';

/** Whose turn it is. */
class Turns {
  readonly dead = new Set<string>();
  readonly #waiting: { readonly actor: string; readonly go: () => void }[] = [];

  async wait(actor: string): Promise<void> {
    await new Promise<void>((go) => this.#waiting.push({ actor, go }));
    if (this.dead.has(actor)) throw new Crash(actor);
  }

  /** Until all are done; `onTurn` before each. Somebody's turns come in bursts: what takes many of them must fit into one of another's. */
  async play(actors: readonly Promise<void>[], dice: Dice, onTurn: () => void): Promise<void> {
    let left = actors.length;
    for (const actor of actors)
      void actor.then(
        () => left--,
        () => left--,
      );
    for (let [actor, burst] = ['', 0]; left > 0;) {
      await new Promise((done) => setImmediate(done));
      if (this.#waiting.length === 0) continue;
      const same = this.#waiting.findIndex((waiting) => waiting.actor === actor);
      const at = same >= 0 && burst-- > 0 ? same : dice.below(this.#waiting.length);
      const [next] = this.#waiting.splice(at, 1);
      if (!next) continue;
      if (at !== same) [actor, burst] = [next.actor, dice.below(24)];
      onTurn();
      next.go();
    }
    await Promise.all(actors);
  }
}

const diskName = (id: string): string => diskNameOf(id, 'xvda', 'content');
const diskOf = (id: string): string => `${uuid}/disks/${diskName(id)}`;

class World {
  readonly things = new Things();
  readonly turns = new Turns();
  readonly pinned = new Set<string>();
  /** Points that hold one. */
  readonly withDisk = new Set<string>();
  readOfForgotten = 0;
  flattened = 0;
  clock = Date.parse('2026-01-01T00:00:00.000Z');

  descent(name: string): Descent | null {
    return this.things.get(`${uuid}/images/${name}`)?.descent ?? null;
  }

  points(actor: string, takesTurns = true): { shelf: MemoryShelf; points: DomainPoints } {
    const shelf = new MemoryShelf(this.things, (_call, _name, done) =>
      done || !takesTurns ? undefined : this.turns.wait(actor),
    );
    const holder = { name: actor, isDead: (name: string) => this.turns.dead.has(name) };
    const readDescent = (name: string): Promise<Descent | null> => Promise.resolve(this.descent(name));
    return { shelf, points: new DomainPoints(shelf, uuid, { holder, readDescent }) };
  }

  ids(): string[] {
    return this.things.lastParts(`${uuid}/points`);
  }

  /** The image of a point. */
  imageOf(id: string): string {
    const flat = this.things.get(`${uuid}/flat/${id}`)?.bytes.toString();
    return flat === undefined ? `${id}.dmi` : (JSON.parse(flat) as { image: { name: string } }).image.name;
  }

  /** What the published points need, or these images, by a walk of its own; fails if any of it is not there. */
  needed(images: readonly string[] = this.ids().map((id) => this.imageOf(id))): Set<string> {
    const needed = new Set<string>();
    const visit = (name: string, by: string, mapped: boolean): void => {
      const descent = this.descent(name);
      assert.ok(descent, `${name} is gone, and ${by} needs it`);
      needed.add(name);
      if (!mapped) return;
      for (const need of descent.needs) visit(need.name, name, descent.mapKind === 'changes');
    };
    for (const image of images) visit(image, 'a point', true);
    for (const id of this.ids())
      if (this.withDisk.has(id)) assert.ok(this.things.has(diskOf(id)), `the disk of ${id} is gone`);
    return needed;
  }
}

async function keepDisk(world: World, shelf: MemoryShelf, id: string): Promise<KeptDisks> {
  const where = diskName(id);
  world.withDisk.add(id);
  await (await shelf.create(diskOf(id))).publish();
  return {
    kind: 'reflink',
    program: null,
    tookMs: 0,
    disks: [{ name: 'xvda', path: '/disk', bytes: 0, where }],
  };
}

/** Takes points, each on the one before where that stays; now and then with a map of all pages, that needs two of the older ones. */
async function write(world: World, actor: string, count: number, dice: Dice): Promise<void> {
  const { shelf, points } = world.points(actor);
  const lease = points.lease();
  let head = (await points.latest())?.image.name ?? null;
  for (let i = 0; i < count; i++) {
    const begun = await points.begin(lease, world.clock++, head);
    const parent = head !== null && begun.parentStays ? world.descent(head) : null;
    const needs: Descent['needs'][number][] = [];
    if (head !== null && parent) needs.push({ name: head, imageId: parent.imageId, root: parent.root });
    const isFull = !parent || dice.below(3) === 0;
    // As a writer that has its parent open: of what the parent needs some pages are still in use.
    if (isFull) for (const need of parent?.needs ?? []) if (dice.below(2) === 0) needs.push({ ...need });
    const descent = descentOf(begun.id, needs, isFull ? 'full' : 'changes');
    const disks = dice.below(2) === 0 ? await keepDisk(world, shelf, begun.id) : ({ kind: 'none' } as const);
    await shelf.putImage(`${uuid}/images/${begun.imageName}`, { bytes: Buffer.alloc(1), descent });
    await points.publish(recordOf(begun.id, begun.imageName, descent, disks));
    head = begun.imageName;
  }
  await lease.drop();
}

/** Sessions one after the other: each goes on from the point that it finds. */
async function writeAgain(world: World, actor: string, dice: Dice): Promise<void> {
  for (let i = 0; i < 4; i++) await write(world, actor, 1 + dice.below(2), dice);
}

async function prune(world: World, actor: string, times: number, dice: Dice): Promise<void> {
  const { points } = world.points(actor);
  for (let i = 0; i < times; i++) await points.prune({ last: dice.below(4) });
}

async function pin(world: World, actor: string, times: number, dice: Dice): Promise<void> {
  const { points } = world.points(actor);
  for (let i = 0; i < times; i++) {
    const ids = await points.ids();
    const id = ids[dice.below(Math.max(1, ids.length))];
    if (id === undefined) continue;
    try {
      if (await points.pin(id)) world.pinned.add(id);
    } catch (thrown) {
      if (!(thrown instanceof DormouseError && thrown.code === 'POINT_NOT_FOUND')) throw thrown;
    }
  }
}

/** One point or two at a time, which may have been forgotten meanwhile. */
async function read(world: World, actor: string, times: number, dice: Dice): Promise<void> {
  const { points } = world.points(actor);
  for (let i = 0; i < times; i++) {
    const records = (await points.list()).filter(() => dice.below(3) === 0).slice(-2);
    const ids = records.map(({ id }) => id);
    const use = async (paths: string[]): Promise<void> => {
      const images = paths.map((path) => path.split('/').at(-1) ?? '');
      for (let turn = 0; turn < 6; turn++) {
        world.needed(images);
        await points.ids();
      }
      if (ids.some((id) => !world.ids().includes(id))) world.readOfForgotten++;
    };
    await points.reading(records, use).catch((thrown: unknown) => {
      if (!(thrown instanceof DormouseError && thrown.code === 'POINT_NOT_FOUND')) throw thrown;
    });
  }
}

/** Any point, one after the other; some are flattened already, some go meanwhile. */
async function flatten(world: World, actor: string, times: number, dice: Dice): Promise<void> {
  const { shelf, points } = world.points(actor);
  for (let i = 0; i < times; i++) {
    const ids = await points.ids();
    const id = ids[dice.below(Math.max(1, ids.length))];
    if (id === undefined) continue;
    const flat = await points
      .flatten(id, async (from, to, record) => {
        world.needed([from.split('/').at(-1) ?? '']);
        const descent = descentOf(`${to}-${actor}`, [], 'full');
        await shelf.putImage(to, { bytes: Buffer.alloc(1), descent });
        return flatImageOf(record, descent);
      })
      .catch((thrown: unknown) => {
        if (!(thrown instanceof DormouseError && thrown.code === 'POINT_NOT_FOUND')) throw thrown;
      });
    if (flat) world.flattened++;
  }
}

async function mayDie(actor: Promise<void>): Promise<void> {
  try {
    await actor;
  } catch (thrown) {
    if (!(thrown instanceof Crash)) throw thrown;
  }
}

/** Readings of points that were forgotten while they were read, and points that were flattened. */
async function run(seed: number, deaths: number): Promise<Pick<World, 'readOfForgotten' | 'flattened'>> {
  const world = new World();
  const dice = new Dice(seed);
  await world.turns.play([write(world, 'first', 3, dice)], dice, () => undefined);
  const actors = ['writer', 'collector', 'flattener', 'another', 'pinner', 'reader', 'flatter'];
  const dies = new Map(actors.slice(0, deaths).map((actor) => [actor, dice.below(160)] as const));
  let turn = 0;
  const playing = [
    writeAgain(world, 'writer', dice),
    prune(world, 'collector', 3, dice),
    prune(world, 'another', 2, dice),
    pin(world, 'pinner', 1, dice),
    read(world, 'reader', 3, dice),
    flatten(world, 'flattener', 3, dice),
    flatten(world, 'flatter', 2, dice),
  ].map(mayDie);
  await world.turns.play(playing, dice, () => {
    for (const [actor, at] of dies) if (turn === at) world.turns.dead.add(actor);
    turn++;
    world.needed();
  });
  world.needed();
  for (const id of world.pinned) assert.ok(world.ids().includes(id), `${id} was pinned and is gone`);
  await recover(world);
  return world;
}

/** All of them are dead now, or ended. */
async function recover(world: World): Promise<void> {
  const { points } = world.points('next', false);
  await points.collect();
  const needed = [...world.needed()].sort();
  assert.deepEqual(world.things.lastParts(`${uuid}/images`), needed, 'orphans stay');
  const disks = world.ids().filter((id) => world.withDisk.has(id));
  assert.deepEqual(world.things.lastParts(`${uuid}/disks`), disks.map(diskName), 'disks of nobody stay');
  const dead = (name: string): boolean => [...world.turns.dead].some((actor) => name.includes(`${actor}~`));
  const flat = world.things.lastParts(`${uuid}/flat`).filter((id) => !world.ids().includes(id));
  assert.deepEqual(flat, [], 'of points that went');
  const kinds = ['leases', 'tombstones'].flatMap((kind) => world.things.lastParts(`${uuid}/${kind}`));
  assert.deepEqual(
    kinds.filter((name) => !dead(name)),
    [],
    'what the living said is not taken back',
  );
  assert.deepEqual(kinds.filter(dead), [], 'what the dead said is not removed');
}

const numRuns = Number(process.env.DORMOUSE_STORE_RUNS ?? 400);

for (const deaths of [0, 1, 3])
  test(`no point loses what it needs, ${deaths} of seven dying`, async (t) => {
    let [readOfForgotten, flattened] = [0, 0];
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 31 - 1 }), async (seed) => {
        const world = await run(seed, deaths);
        readOfForgotten += world.readOfForgotten;
        flattened += world.flattened;
      }),
      { numRuns, includeErrorInReport: true },
    );
    t.diagnostic(`${readOfForgotten} readings of points that were forgotten meanwhile`);
    t.diagnostic(`${flattened} points flattened`);
    assert.ok(readOfForgotten > 0 && flattened > 0);
  });

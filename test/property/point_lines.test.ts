/**
 * What led from one point to another, in a store of which points are taken, gone back to and forgotten at random while the clock jumps:
 * against somebody who remembers all of it.
 */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test } from 'node:test';
import fc from 'fast-check';
import { DomainPoints } from '../../src/store/domain_points.js';
import { lineOf } from '../../src/store/line.js';
import type { Descent } from '../../src/store/lineage.js';
import { Dice } from '../support/dice.js';
import { MemoryShelf, Things } from '../support/memory_shelf.js';
import { descentOf, recordOf, uuid } from '../support/point_records.js';

class World {
  readonly things = new Things();
  readonly shelf = new MemoryShelf(this.things);
  readonly points: DomainPoints;
  /** Of each point that ever was. */
  readonly parents = new Map<string, string | null>();
  /** Where the domain is. */
  current: string | null = null;
  clock = Date.parse('2026-01-01T12:00:00.000Z');
  domid = 1;
  jumps = 0;
  forgotten = 0;

  constructor(private readonly dice: Dice) {
    const holder = { name: 'me', isDead: () => false };
    const readDescent = (name: string): Promise<Descent | null> =>
      Promise.resolve(this.things.get(`${uuid}/images/${name}`)?.descent ?? null);
    this.points = new DomainPoints(this.shelf, uuid, { holder, readDescent });
  }

  #tick(): number {
    this.clock += this.dice.below(3);
    if (this.dice.below(12) === 0) {
      this.clock -= this.dice.below(40);
      this.jumps++;
    }
    return this.clock;
  }

  async take(): Promise<void> {
    const lease = this.points.lease();
    const begun = await this.points.begin(lease, this.#tick(), null);
    const descent = descentOf(begun.id, [], 'full');
    await this.shelf.putImage(`${uuid}/images/${begun.imageName}`, { bytes: Buffer.alloc(1), descent });
    const parent = (await this.points.current())?.id ?? null;
    assert.equal(parent, this.current);
    const record = recordOf(begun.id, begun.imageName, descent);
    await this.points.publish({ ...record, parent, domain: { ...record.domain, domid: this.domid } });
    await lease.drop();
    this.parents.set(begun.id, parent);
    this.current = begun.id;
  }

  async goBack(): Promise<void> {
    const ids = await this.points.ids();
    const to = ids[this.dice.below(ids.length)];
    if (to === undefined) return;
    await this.points.wentBack(to, this.#tick());
    this.current = to;
  }

  /** The point that the domain is at stays, as nothing could be taken on it else. */
  async prune(): Promise<void> {
    const ids = (await this.points.ids()).filter((id) => id !== this.current && this.dice.below(3) === 0);
    const { forgotten } = await this.points.prune({ last: 1e6 }, { also: ids });
    this.forgotten += forgotten.length;
  }

  /** By memory. */
  lineOf(from: string, to: string, there: ReadonlySet<string>): string[] | null {
    const line: string[] = [];
    for (let at: string | null = to; at !== null; at = this.parents.get(at) ?? null) {
      if (there.has(at)) line.push(at);
      if (at === from) return line.reverse();
    }
    return null;
  }
}

async function run(seed: number): Promise<{ lines: number; jumps: number; forgotten: number }> {
  const dice = new Dice(seed);
  const world = new World(dice);
  for (let turns = 10 + dice.below(50); turns > 0; turns--) {
    const what = dice.below(10);
    await (what < 6 ? world.take() : what < 8 ? world.goBack() : world.prune());
  }
  const ids = await world.points.ids();
  let lines = 0;
  for (const from of ids)
    for (const to of ids) {
      const line = await world.points.line(from, to);
      assert.deepEqual(
        line?.map(({ id }) => id) ?? null,
        world.lineOf(from, to, new Set(ids)),
        `${from} to ${to}`,
      );
      if (line) lines++;
    }
  return { lines, jumps: world.jumps, forgotten: world.forgotten };
}

test('a line is what one who remembers says, whatever was forgotten', async (t) => {
  const seen = { lines: 0, jumps: 0, forgotten: 0 };
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 31 - 1 }), async (seed) => {
      const { lines, jumps, forgotten } = await run(seed);
      seen.lines += lines;
      seen.jumps += jumps;
      seen.forgotten += forgotten;
    }),
    { numRuns: 150, includeErrorInReport: true },
  );
  t.diagnostic(JSON.stringify(seen));
  assert.ok(seen.lines > 0 && seen.jumps > 0 && seen.forgotten > 0);
});

test('nothing goes on from a domain of another id, nor from what is younger', () => {
  const point = (id: string, parent: string | null, domid = 1): Parameters<typeof lineOf>[0][number] => ({
    ...{ id, parent, domid },
  });
  // After a reboot b began a chain of its own, and went.
  assert.equal(lineOf([point('a', null), point('c', 'b', 2)], [], 'a', 'c'), null);
  assert.deepEqual(lineOf([point('a', null), point('c', 'b')], [], 'a', 'c'), ['a', 'c']);
  assert.equal(lineOf([point('a', 'c'), point('c', 'a')], [], 'b', 'c'), null);
  assert.equal(lineOf([point('c', 'b')], [{ id: 'a', point: 'c' }], 'a', 'c'), null);
  assert.deepEqual(lineOf([point('a', null)], [], 'a', 'a'), ['a']);
});

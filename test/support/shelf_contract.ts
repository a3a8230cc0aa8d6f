/** What must hold of every shelf, wherever it keeps its things. */
import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { test, type TestContext } from 'node:test';
import type { ErrorCode } from '../../src/errors.js';
import { largestBytes, type Shelf } from '../../src/store/shelf.js';
import { Dice } from './dice.js';

/** A place of things, at first empty. */
export interface ShelfPlace {
  /** A shelf on it, as another process has one. */
  open(): Shelf;
  /** Keeps an image as its writer does. */
  writeImage(shelf: Shelf, name: string, bytes: Buffer): Promise<void>;
  /** Writes to a new file by its path; absent where its path leads nowhere. */
  fill?(path: string, bytes: Buffer): void;
  /** All who have a shelf on it die, and the machine with them; what was not durable is lost where that can be done. */
  crash?(): void;
  /** A put in that folder that never ended. */
  leavePut?(folder: string): Promise<void>;
  /** How many such puts, and whatever else has no name, are there. */
  leftPuts?(): number;
}

/** One that can be made to fail: its disk cannot be read nor written, or is full; null: no longer. */
export interface FailingPlace extends ShelfPlace {
  fail(how: 'broken' | 'full' | null): void;
}

export type MakePlace<Place = ShelfPlace> = (t: TestContext) => Place | Promise<Place>;

const bytesOf = (text: string): Buffer => Buffer.from(text);
const textOf = async (shelf: Shelf, name: string): Promise<string | undefined> =>
  (await shelf.get(name))?.toString();

function oneThing(title: string, make: MakePlace): void {
  test(`${title}: what is put is there, whoever looks, and is not put twice`, async (t) => {
    const place = await make(t);
    const [shelf, other] = [place.open(), place.open()];
    assert.equal(await shelf.get('a/b/one'), null);
    assert.equal(await shelf.size('a/b/one'), null);
    const bytes = bytesOf('first');
    assert.equal(await shelf.putIfAbsent('a/b/one', bytes), true);
    bytes.fill('x');
    assert.equal(await textOf(shelf, 'a/b/one'), 'first', 'it follows the bytes that were given');
    (await shelf.get('a/b/one'))?.fill('y');
    assert.equal(await textOf(other, 'a/b/one'), 'first', 'it follows the bytes that were got');
    assert.equal(await other.putIfAbsent('a/b/one', bytesOf('second')), false);
    assert.equal(await textOf(shelf, 'a/b/one'), 'first');
    assert.equal(await shelf.putIfAbsent('a/b/none', Buffer.alloc(0)), true);
    assert.deepEqual(await other.get('a/b/none'), Buffer.alloc(0));
    assert.equal(await textOf(shelf, 'a/b/on'), undefined, 'a name that begins as another');
    assert.notEqual(shelf.description, '');
  });

  test(`${title}: what is deleted is gone, once, and may be put again`, async (t) => {
    const place = await make(t);
    const [shelf, other] = [place.open(), place.open()];
    assert.equal(await shelf.delete('a/one'), false);
    await shelf.putIfAbsent('a/one', bytesOf('first'));
    await shelf.putIfAbsent('a/two', bytesOf('stays'));
    assert.equal(await other.delete('a/one'), true);
    assert.equal(await shelf.delete('a/one'), false);
    assert.deepEqual([await shelf.get('a/one'), await shelf.size('a/one')], [null, null]);
    assert.deepEqual(await shelf.list('a'), ['two']);
    assert.equal(await shelf.putIfAbsent('a/one', bytesOf('again')), true);
    assert.deepEqual([await textOf(other, 'a/one'), await textOf(other, 'a/two')], ['again', 'stays']);
  });
}

function sizes(title: string, make: MakePlace): void {
  test(`${title}: sizes, up to the largest`, async (t) => {
    const shelf = (await make(t)).open();
    const dice = new Dice(7);
    const noise = Buffer.from(
      Uint32Array.from({ length: largestBytes / 4 }, () => dice.below(2 ** 32)).buffer,
    );
    await shelf.putIfAbsent('a/large', noise.subarray(1));
    await shelf.putIfAbsent('a/larger', noise);
    assert.ok((await shelf.get('a/large'))?.equals(noise.subarray(1)));
    await assert.rejects(shelf.get('a/larger'), { code: 'STORE_DAMAGED' });
    assert.ok(((await shelf.size('a/large')) ?? 0) >= noise.length - 1);
    assert.ok((await shelf.freeBytes()) > 0);
  });

  test(`${title}: an image is written by its path, and listed, measured and deleted as any thing`, async (t) => {
    const place = await make(t);
    const [shelf, other] = [place.open(), place.open()];
    const paths = [await shelf.imagePath('u/images/a.dmi'), await shelf.imagePath('u/images/b.dmi')];
    assert.notEqual(paths[0], paths[1]);
    assert.equal(await other.imagePath('u/images/a.dmi'), paths[0]);
    assert.deepEqual(await shelf.list('u/images'), []);
    await place.writeImage(shelf, 'u/images/a.dmi', Buffer.alloc(100_000, 7));
    assert.deepEqual(await other.list('u/images'), ['a.dmi']);
    assert.ok(Number.isSafeInteger(await other.size('u/images/a.dmi')));
    assert.equal(await other.putIfAbsent('u/images/a.dmi', bytesOf('no')), false);
    assert.equal(await other.delete('u/images/a.dmi'), true);
    assert.equal(await shelf.size('u/images/a.dmi'), null);
  });
}

function names(title: string, make: MakePlace): void {
  test(`${title}: lists are of one folder, sorted and without what has no name`, async (t) => {
    const place = await make(t);
    const shelf = place.open();
    assert.deepEqual([await shelf.list(''), await shelf.list('u'), await shelf.list('u/none')], [[], [], []]);
    const last = [
      'b~1',
      'a',
      'B',
      '0',
      'a.b',
      'a-b',
      'a_b',
      'ab',
      '20261122-183512.123.dmi',
      'z'.repeat(200),
    ];
    for (const name of last) await shelf.putIfAbsent(`u/points/${name}`, bytesOf(name));
    for (const name of ['u/pins/p', 'u/pointsx/q', 'v/points/r', 'marker'])
      await shelf.putIfAbsent(name, bytesOf(name));
    assert.deepEqual(await place.open().list('u/points'), last.toSorted());
    assert.deepEqual(await shelf.list('u'), ['pins', 'points', 'pointsx']);
    assert.deepEqual(await shelf.list(''), ['marker', 'u', 'v']);
    assert.deepEqual(await shelf.list('u/points/a'), [], 'a thing is no folder');
    for (const name of last) assert.equal(await textOf(shelf, `u/points/${name}`), name);
  });

  test(`${title}: what is no name is refused, and nothing done`, async (t) => {
    const shelf = (await make(t)).open();
    const wrong = [
      '.',
      '..',
      'a/../b',
      '/a',
      'a/',
      'a//b',
      '.a',
      'a/.b',
      '-a',
      '~a',
      'a b',
      'a\0',
      'a\n',
      'é',
      'a\\b',
    ];
    const calls: readonly ((name: string) => Promise<unknown>)[] = [
      (name) => shelf.putIfAbsent(name, bytesOf('x')),
      (name) => shelf.get(name),
      (name) => shelf.size(name),
      (name) => shelf.delete(name),
      (name) => shelf.list(name),
      (name) => shelf.imagePath(name),
      (name) => shelf.create(name),
      (name) => shelf.sweep(name, new Set()),
    ];
    for (const name of wrong)
      for (const call of calls) await assert.rejects(call(name), { code: 'INTERNAL' }, JSON.stringify(name));
    for (const call of calls.filter((_, at) => at !== 4))
      await assert.rejects(call(''), { code: 'INTERNAL' });
    assert.deepEqual(await shelf.list(''), []);
  });
}

const together = 16;

function created(title: string, make: MakePlace): void {
  test(`${title}: a new file has no name before it is published, and is none that was dropped`, async (t) => {
    const place = await make(t);
    const [shelf, other] = [place.open(), place.open()];
    const first = await shelf.create('u/disks/a.raw');
    const [second, third] = [await other.create('u/disks/a.raw'), await other.create('u/disks/b.raw')];
    assert.deepEqual(await shelf.list('u/disks'), []);
    place.fill?.(first.path, bytesOf('first'));
    place.fill?.(second.path, bytesOf('second'));
    assert.equal(await first.publish(), true);
    assert.equal(await second.publish(), false);
    await first.drop();
    await second.drop();
    await third.drop();
    place.crash?.();
    const next = place.open();
    assert.deepEqual(await next.list('u/disks'), ['a.raw']);
    if (place.fill) assert.equal(await textOf(next, 'u/disks/a.raw'), 'first');
    await next.sweep('u/disks', new Set());
    assert.equal(place.leftPuts?.() ?? 0, 0);
    assert.equal(await next.delete('u/disks/a.raw'), true);
  });
}

function races(title: string, make: MakePlace): void {
  test(`${title}: of many who put one name at once one does, and his bytes are there`, async (t) => {
    const place = await make(t);
    for (let round = 0; round < 12; round++) {
      const name = `race/${round}`;
      const puts = Array.from({ length: together }, (_, i) =>
        place.open().putIfAbsent(name, bytesOf(`by ${i}`)),
      );
      const done = await Promise.all(puts);
      assert.equal(done.filter((is) => is).length, 1);
      assert.equal(await textOf(place.open(), name), `by ${done.indexOf(true)}`);
      const gone = await Promise.all(puts.map(() => place.open().delete(name)));
      assert.equal(gone.filter((is) => is).length, 1);
    }
  });

  test(`${title}: of puts and deletes at once as many do as is left at the end`, async (t) => {
    const place = await make(t);
    const dice = new Dice(3);
    for (let round = 0; round < 12; round++) {
      const name = `race/${round}`;
      const kinds = Array.from({ length: together }, () => dice.below(2) === 0);
      const done = await Promise.all(
        kinds.map((puts, i) => {
          const shelf = place.open();
          return puts ? shelf.putIfAbsent(name, bytesOf(`by ${i}`)) : shelf.delete(name);
        }),
      );
      const did = (puts: boolean): number => done.filter((is, i) => is && kinds[i] === puts).length;
      assert.equal(did(true) - did(false), (await place.open().get(name)) === null ? 0 : 1);
    }
  });

  test(`${title}: who reads meanwhile gets all of a thing or nothing, and what is listed is a name`, async (t) => {
    const place = await make(t);
    const whole = (bytes: Buffer): boolean => bytes.every((byte) => byte === bytes.length % 251);
    let [reads, found] = [0, 0];
    const writing = Promise.all(
      ['one', 'two', 'three'].map(async (name, at) => {
        const shelf = place.open();
        for (let length = 1 + at; length < 300_000; length = length * 2 + at) {
          await shelf.putIfAbsent(`u/${name}`, Buffer.alloc(length, length % 251));
          await new Promise((done) => setImmediate(done));
          await shelf.delete(`u/${name}`);
        }
      }),
    ).then(() => (reads = -1));
    const shelf = place.open();
    while (reads >= 0) {
      reads++;
      for (const name of await shelf.list('u')) {
        assert.ok(['one', 'two', 'three'].includes(name), name);
        const bytes = await shelf.get(`u/${name}`);
        if (bytes === null) continue;
        found++;
        assert.ok(bytes.length > 0 && whole(bytes), `${bytes.length} bytes of it`);
      }
      await new Promise((done) => setImmediate(done));
    }
    await writing;
    assert.ok(found > 0, 'nothing was ever there');
  });
}

function leftovers(title: string, make: MakePlace): void {
  test(`${title}: sweeping removes what puts have left, and nothing that has a name`, async (t) => {
    const place = await make(t);
    const shelf = place.open();
    await shelf.sweep('u/points', new Set());
    await shelf.putIfAbsent('u/points/one', bytesOf('one'));
    await place.leavePut?.('u/points');
    assert.deepEqual(await shelf.list('u/points'), ['one'], 'a put that never ended is seen');
    const next = place.open();
    await next.sweep('u/points', new Set());
    assert.equal(await textOf(next, 'u/points/one'), 'one');
    assert.equal(place.leftPuts?.() ?? 0, 0);
  });

  test(`${title}: what calls have done outlives everybody`, async (t) => {
    const place = await make(t);
    const shelf = place.open();
    for (const name of ['u/points/one', 'u/points/two', 'u/pins/one', 'marker'])
      await shelf.putIfAbsent(name, bytesOf(name));
    await place.writeImage(shelf, 'u/images/a.dmi', Buffer.alloc(10, 7));
    await shelf.delete('u/points/one');
    await shelf.delete('u/pins/one');
    assert.equal(await shelf.putIfAbsent('marker', bytesOf('other')), false);
    place.crash?.();
    const next = place.open();
    assert.deepEqual(await next.list('u/points'), ['two']);
    assert.deepEqual(await next.list('u/pins'), []);
    assert.deepEqual(await next.list('u/images'), ['a.dmi']);
    assert.deepEqual(
      [await textOf(next, 'u/points/two'), await textOf(next, 'marker')],
      ['u/points/two', 'marker'],
    );
  });
}

async function failsWith(code: ErrorCode, calls: readonly (() => Promise<unknown>)[]): Promise<void> {
  for (const call of calls)
    await assert.rejects(call(), (thrown: { code: string; place?: { path?: string } }) => {
      assert.equal(thrown.code, code);
      assert.notEqual(thrown.place?.path, undefined);
      return true;
    });
}

/** Of one that can fail. */
export function testFailures(title: string, make: MakePlace<FailingPlace>): void {
  test(`${title}: it is told with a code of the list, and all of it is done or nothing`, async (t) => {
    const place = await make(t);
    const shelf = place.open();
    await shelf.putIfAbsent('a/one', bytesOf('one'));
    const reads = [(): Promise<unknown> => shelf.get('a/one'), (): Promise<unknown> => shelf.list('a')];
    const put = (): Promise<unknown> => shelf.putIfAbsent('a/two', bytesOf('two'));
    const makeFolder = (): Promise<unknown> => shelf.imagePath('b/images/x');
    place.fail('broken');
    await failsWith('IMAGE_READ_FAILED', reads);
    await failsWith('IMAGE_WRITE_FAILED', [put, makeFolder, () => shelf.delete('a/one')]);
    place.fail('full');
    await failsWith('NO_SPACE', [put, makeFolder]);
    assert.equal(await textOf(shelf, 'a/one'), 'one');
    place.fail(null);
    assert.deepEqual(await shelf.list('a'), ['one']);
    assert.equal(await shelf.putIfAbsent('a/two', bytesOf('two')), true);
    assert.deepEqual([await textOf(shelf, 'a/one'), await textOf(shelf, 'a/two')], ['one', 'two']);
  });
}

/** Registers the tests of a kind of shelf; `make` gives each of them a place of its own. */
export function testShelf(title: string, make: MakePlace): void {
  for (const part of [oneThing, sizes, names, created, races, leftovers]) part(title, make);
}

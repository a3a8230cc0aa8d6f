import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DormouseError } from '../../src/errors.js';
import { maxValueBytes, XenstoreTree } from '../../src/host/embedded/xenstore.js';

const isUsage = (thrown: unknown) => thrown instanceof DormouseError && thrown.code === 'USAGE';

test('writes make parents, removal takes the subtree', () => {
  const store = new XenstoreTree();
  store.write('/local/domain/1/name', 'web1');
  assert.equal(store.read('/local/domain/1/name'), 'web1');
  assert.equal(store.read('/local/domain/1'), '');
  assert.equal(store.read('/local/domain/2'), null);
  assert.deepEqual(store.list('/local/domain'), ['1']);
  store.remove('/local/domain/1');
  assert.equal(store.read('/local/domain/1/name'), null);
  assert.deepEqual(store.list('/local/domain'), []);
  assert.deepEqual(store.list('/nowhere'), []);
  assert.equal(store.counts().nodes, 3);
});

test('paths and values are checked', () => {
  const store = new XenstoreTree();
  for (const path of ['', 'a', '/a/', '//a', '/a b', '/ä', `/${'a'.repeat(4000)}`, '/a'.repeat(100)])
    assert.throws(() => store.read(path), isUsage, path);
  assert.throws(() => store.write('/a', 'x'.repeat(maxValueBytes + 1)), isUsage);
  assert.throws(() => store.remove('/'), isUsage);
});

test('a full store refuses nodes and keeps what it has', () => {
  const store = new XenstoreTree();
  const full = (thrown: unknown) => thrown instanceof DormouseError && thrown.code === 'NO_MEMORY';
  const fill = () => {
    for (let i = 0; i < 70_000; i++) store.write(`/x/${i >> 8}/${i & 255}`, '');
  };
  assert.throws(fill, full);
  assert.equal(store.read('/x/0/0'), '');
  store.remove('/x');
  store.write('/y/z', 'again');
  assert.equal(store.counts().nodes, 3);
});

test('a transaction is unseen until it commits, and sees itself', () => {
  const store = new XenstoreTree();
  store.write('/a', '1');
  const tx = store.begin();
  store.write('/a', '2', tx);
  store.write('/b/c', '3', tx);
  assert.equal(store.read('/a'), '1');
  assert.deepEqual([store.read('/a', tx), store.read('/b/c', tx)], ['2', '3']);
  assert.ok(store.end(tx, true));
  assert.deepEqual([store.read('/a'), store.read('/b/c')], ['2', '3']);
  assert.throws(() => store.read('/a', tx), isUsage);
});

test('an aborted transaction leaves nothing', () => {
  const store = new XenstoreTree();
  const tx = store.begin();
  store.write('/a', '1', tx);
  assert.ok(store.end(tx, false));
  assert.equal(store.read('/a'), null);
  assert.equal(store.counts().transactions, 0);
});

test('what a transaction looked at must not have changed', () => {
  const store = new XenstoreTree();
  store.write('/count', '1');
  store.write('/dir/a', '');
  const during = (look: (tx: number) => void, change: () => void): boolean => {
    const tx = store.begin();
    look(tx);
    store.write('/result', 'x', tx);
    change();
    return store.end(tx, true);
  };
  assert.equal(
    during(
      (tx) => store.read('/count', tx),
      () => store.write('/count', '2'),
    ),
    false,
  );
  assert.equal(
    during(
      (tx) => store.read('/count', tx),
      () => store.write('/count', '2'),
    ),
    false,
    'same value, still a write',
  );
  assert.equal(
    during(
      (tx) => store.list('/dir', tx),
      () => store.write('/dir/b', ''),
    ),
    false,
  );
  assert.equal(
    during(
      (tx) => store.list('/dir', tx),
      () => store.remove('/dir/b'),
    ),
    false,
  );
  assert.equal(
    during(
      (tx) => store.read('/absent', tx),
      () => store.write('/absent', ''),
    ),
    false,
  );
  assert.equal(store.read('/result'), null);
  assert.equal(
    during(
      (tx) => store.list('/dir', tx),
      () => store.write('/dir/a', 'value only'),
    ),
    true,
  );
  assert.equal(
    during(
      (tx) => store.read('/count', tx),
      () => store.write('/other', ''),
    ),
    true,
  );
});

test('watches fire at once, at changes below, and when an ancestor goes', () => {
  const store = new XenstoreTree();
  store.write('/d/1/name', 'a');
  const seen: string[] = [];
  const end = store.watch('/d/1', (path) => seen.push(path));
  store.write('/d/1/name', 'b');
  store.write('/d/10/name', 'other');
  store.write('/d/1', 'x');
  store.remove('/d/1/none');
  store.remove('/d');
  assert.deepEqual(seen, ['/d/1', '/d/1/name', '/d/1', '/d/1']);
  end();
  store.write('/d/1/name', 'c');
  assert.equal(seen.length, 4);
});

test('watches fire for a transaction when it commits, and not if it does not', () => {
  const store = new XenstoreTree();
  const seen: string[] = [];
  store.watch('/a', (path) => seen.push(path));
  for (const commit of [false, true]) {
    const tx = store.begin();
    store.write('/a/b', '1', tx);
    assert.equal(seen.length, 1);
    store.end(tx, commit);
  }
  assert.deepEqual(seen, ['/a', '/a/b']);
});

test('special watches hear announcements only', () => {
  const store = new XenstoreTree();
  const seen: string[] = [];
  store.watch('@releaseDomain', (path) => seen.push(path));
  store.watch('/', (path) => seen.push(path));
  store.announce('@releaseDomain');
  store.announce('@introduceDomain');
  assert.deepEqual(seen, ['@releaseDomain', '/', '@releaseDomain']);
});

test('interleaved transactions that commit are as if run one after the other', () => {
  const step = fc.record({
    tx: fc.nat(2),
    from: fc.nat(3),
    to: fc.nat(3),
    end: fc.nat(3).map((n) => n === 0),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const store = new XenstoreTree();
      const key = (n: number) => `/k/${n}`;
      for (let n = 0; n < 4; n++) store.write(key(n), '100');
      const open: (number | undefined)[] = [];
      for (const { tx, from, to, end } of steps) {
        const id = (open[tx] ??= store.begin());
        const move = (n: number, by: number) =>
          store.write(key(n), String(Number(store.read(key(n), id)) + by), id);
        move(from, -1);
        move(to, 1);
        if (!end) continue;
        store.end(id, true);
        open[tx] = undefined;
      }
      const total = [0, 1, 2, 3].reduce((sum, n) => sum + Number(store.read(key(n))), 0);
      assert.equal(total, 400);
      assert.equal(store.counts().nodes, 6);
    }),
    { numRuns: 500 },
  );
});

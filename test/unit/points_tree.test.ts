/** What `points` shows: of branches, and of points that are none to go back to in place. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pointIdOf } from '../../src/store/point_id.js';
import { cli, services } from '../support/cli.js';
import { FakeHost } from '../support/fake_host.js';
import { descentOf, recordOf } from '../support/point_records.js';

test('each point is below the one that it goes on from, what was left behind is indented', async () => {
  // The second was gone back to twice; the parent of the last is gone.
  const parents = [null, 0, 1, 2, 1, 1, 5, null];
  const ids = parents.map((_, i) => pointIdOf(i));
  const listed = parents.map((parent, i) => {
    const id = ids[i] ?? '';
    const record = recordOf(id, `${id}.dmi`, descentOf(id, [], 'full'));
    const above = i === 7 ? pointIdOf(1e9) : parent === null ? null : (ids[parent] ?? null);
    return { point: { ...record, parent: above, pinned: false }, path: id };
  });
  const given = services(new FakeHost([]), { listPoints: () => Promise.resolve(listed) });
  const { stdout } = await cli(given, ['points', '--store', 's', '--tree']);
  const shown = stdout
    .split('\n')
    .slice(1, -1)
    .map((line) => [line.search(/\S/u) / 2, ids.indexOf(line.trim().split(' ')[0] ?? '')]);
  assert.deepEqual(shown, [
    [0, 0],
    [0, 1],
    [1, 2],
    [1, 3],
    [1, 4],
    [0, 5],
    [0, 6],
    [0, 7],
  ]);
});

test('a point that cannot be gone back to in place says so', async () => {
  const listed = ['', 'its ring is not idle'].map((unfit, i) => {
    const id = pointIdOf(i);
    const record = recordOf(id, `${id}.dmi`, descentOf(id, [], 'full'));
    return { point: { ...record, unfit, pinned: i === 1 }, path: id };
  });
  const given = services(new FakeHost([]), { listPoints: () => Promise.resolve(listed) });
  const { stdout } = await cli(given, ['points', '--store', 's']);
  const [, fit, unfit] = stdout.split('\n');
  assert.doesNotMatch(fit ?? '', /not in place/u);
  assert.match(unfit ?? '', /pinned, not in place$/u);
  const json = await cli(given, ['--json', 'points', '--store', 's']);
  const { points } = JSON.parse(json.stdout) as { points: { unfit: string }[] };
  assert.deepEqual(
    points.map((point) => point.unfit),
    ['', 'its ring is not idle'],
  );
});

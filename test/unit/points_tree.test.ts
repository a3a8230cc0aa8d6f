/** What `points --tree` shows of branches. */
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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import { snapshotDowntime } from '../../src/domain/operation.js';
import { DormouseError } from '../../src/errors.js';
import { noPages } from '../../src/pfn/counts.js';
import { cli, services, type Ran } from '../support/cli.js';
import { domainInfo, FakeHost } from '../support/fake_host.js';

const taken = (path: string): CheckpointResult => ({
  ...{ path, imageId: '00', parent: null, compression: 'lz4', domid: 1, name: 'a', paused: false },
  ...{ mode: 'light', consistency: 'suspend-point', counts: { ...noPages }, memoryBytes: 0, storedBytes: 0 },
  ...{ pauseMs: 0, elapsedMs: 0, cowPages: 0, copiedPages: 0, downtime: snapshotDowntime(0) },
  phases: { prepareMs: 0, liveMs: 0, pauseMs: 0, writeMs: 0, commitMs: 0, settleMs: 0 },
});

/** A series of five of which the one of that number fails. */
async function series(failing: number, ...options: string[]): Promise<Ran> {
  const controller = new AbortController();
  const given = services(new FakeHost([domainInfo()]), {
    checkpoint: (_host, _selector, path) => {
      if (path !== `x-${failing}.dmi`) return Promise.resolve(taken(path));
      if (options.includes('--interval')) controller.abort('SIGTERM');
      if (options.includes('--interval')) return Promise.resolve(taken(path));
      return Promise.reject(new DormouseError('NO_SPACE', 'disk full', { place: { path } }));
    },
  });
  const argv = ['checkpoint', '--count', '5', ...options, 'web1', 'x-%d.dmi'];
  return cli(given, argv, controller.signal);
}

test('a series that stops early says what there is of it', async () => {
  const failed = await series(3);
  assert.equal(failed.exitCode, 1);
  assert.match(failed.stderr, /^dormouse: disk full\n {2}kept: 2 of 5 images, whole: x-1.dmi to x-2.dmi\n/u);
  const cancelled = await series(1, '--interval', '1000');
  assert.equal(cancelled.exitCode, 143);
  assert.match(cancelled.stderr, /cancelled between .*\n {2}kept: 1 of 5 images, whole: x-1.dmi\n/u);
  assert.doesNotMatch((await series(1)).stderr, /kept/u);
});

test('the error document of a series holds the finished ones', async () => {
  const { stdout, stderr } = await series(3, '--json');
  assert.equal(stdout, '');
  const { name, done } = JSON.parse(stderr) as { name: string; done: { checkpoints: CheckpointResult[] } };
  assert.equal(name, 'NO_SPACE');
  assert.deepEqual(done.checkpoints, [taken('x-1.dmi'), taken('x-2.dmi')]);
});

test('each place of the number is filled in', async () => {
  const paths: string[] = [];
  const given = services(new FakeHost([domainInfo()]), {
    checkpoint: (_host, _selector, path) => {
      paths.push(path);
      return Promise.resolve(taken(path));
    },
  });
  await cli(given, ['checkpoint', '--count', '2', 'web1', '%d/x-%d.dmi']);
  assert.deepEqual(paths, ['1/x-1.dmi', '2/x-2.dmi']);
});

/** Two tools on one domain at once: the second is told who is at work, and disturbs nothing. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { closeWorkers } from '../../src/worker/pool.js';
import { command, failure, startCommand } from '../support/command.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const onHost = ['--host', 'embedded:test'];

test('the second tool exits with 11 and names the first', async (t) => {
  const host = await startTestHost(t);
  t.after(closeWorkers);
  const dir = tempDir(t);
  const config = { program: 'counter', rate: 1000, deaf: true } as const;
  const domid = await host.create(guestSpec('busy', config), { paused: false });
  const first = startCommand(t, ['save', '-c', 'busy', join(dir, 'first.dmi'), '--json', ...onHost]);
  await until('the first is at work', 20_000, async () => (await host.status()).leases.length === 1);
  const image = join(dir, 'second.dmi');
  const seconds = [
    ['save', 'busy', image],
    ['save', '-c', 'busy', image],
    ['checkpoint', 'busy', image],
    ['digest', 'busy'],
    ['destroy', 'busy'],
  ];
  for (const line of seconds) {
    const error = await failure(t, 'LOCKED', 11, [...line, ...onHost]);
    assert.ok(error.message.includes(`'busy' is held by process ${first.pid} (save)`), error.message);
    assert.equal(error.guest, 'untouched');
  }
  const { leases, snapshots } = await host.status();
  assert.deepEqual([leases, snapshots], [[{ domid, operation: 'save', pid: first.pid }], 0]);
  assert.deepEqual(readdirSync(dir), []);
  first.kill('SIGINT');
  assert.equal((await first.ended).exitCode, 130);
  assert.equal((await command(t, 'checkpoint', 'busy', image, ...onHost)).exitCode, 0);
});

/** `kill -9` of the host under a tool at work: the tool says that the guest is gone, and leaves no file. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { errorOf, failure, startCommand } from '../support/command.js';
import { isAlive, guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const verbs = [['save'], ['save', '-c'], ['checkpoint'], ['checkpoint', '--mode', 'cooperative']];

for (const verb of verbs)
  test(`the host is killed under ${verb.join(' ')}`, async (t) => {
    const host = await startTestHost(t);
    const dir = tempDir(t);
    const config = { program: 'writer', rate: 1000 } as const;
    await host.create(guestSpec('guest', config, { memoryMib: 64 }), { paused: false });
    const { pid } = await host.status();
    const line = [...verb, 'guest', join(dir, 'new.dmi'), '--host', 'embedded:test', '--json'];
    const run = startCommand(t, line);
    await until('the tool is at work', 20_000, async () => (await host.status()).leases.length === 1);
    process.kill(pid, 'SIGKILL');
    const ended = await run.ended;
    assert.equal(ended.exitCode, 5, ended.stderr);
    const error = errorOf(ended);
    assert.deepEqual([error.name, error.guest], ['HOST_DIED', 'gone']);
    assert.deepEqual(readdirSync(dir), []);
    await until('the host has ended', 5000, () => !isAlive(pid));
    const lost = await failure(t, 'HOST_DIED', 5, ['list', '--host', 'embedded:test']);
    assert.match(lost.message, /guest/u);
  });

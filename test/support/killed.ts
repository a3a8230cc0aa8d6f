/** What `kill -9` of a tool may not do, for tool_killed*.test.ts. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { closeWorkers } from '../../src/worker/pool.js';
import { startTestHost } from './hosts.js';
import { tempDir } from './images.js';
import { interruptMany, type Campaign } from './interrupt.js';

export const kills = 30;

/** `DORMOUSE_KILL_SEED` brings a failing run back, as far as the machine's timing allows. */
export const killSeed = Number(process.env.DORMOUSE_KILL_SEED ?? Date.now() % 1_000_000_000);

export async function killMany(
  t: TestContext,
  then: Campaign['then'],
  args: Campaign['args'],
): Promise<void> {
  const host = await startTestHost(t, { memoryMib: 2048 });
  t.after(closeWorkers);
  await interruptMany(t, host, tempDir(t), {
    args: (name, image) => [...args(name, image), '--host', 'embedded:test', '-q'],
    then,
    signals: ['SIGKILL'],
    times: kills,
    seed: killSeed,
    judge: ({ ended, working }) => {
      assert.ok(ended.signal === 'SIGKILL' || ended.exitCode === 0, ended.stderr);
      return working;
    },
  });
}

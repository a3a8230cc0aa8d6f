/**
 * The demo: a guest that keeps writing is checkpointed twenty times while it runs, saved, destroyed and restored; then
 * its memory and registers are compared with those of a guest with the same seed that nobody touched.
 */
import { randomUUID } from 'node:crypto';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { checkpoint, type CheckpointResult } from '../checkpoint/checkpoint.js';
import { formatBytes, formatCount, formatDuration } from '../render/units.js';
import { digestDomain } from '../digest/digest.js';
import { asDormouseError, DormouseError } from '../errors.js';
import type { DomainSpec } from '../host/contract.js';
import { restore, type RestoreResult } from '../restore/restore.js';
import { save, type SaveResult } from '../save/save.js';
import { measureLimits } from './limits.js';
import { type DemoRow, renderReport, reportRows } from './report.js';
import { onStage, type Stage } from './stage.js';

export interface DemoTalk {
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface DemoResult {
  /** Always true: a difference is thrown. */
  readonly identical: boolean;
  readonly digest: string;
  /** Light checkpoints taken while the guest ran. */
  readonly checkpoints: number;
  readonly rows: readonly DemoRow[];
  readonly elapsedMs: number;
  readonly table: string;
}

const checkpointCount = 20;
const memoryMib = 1024;
const vcpus = 2;
/** Steps a second of each vCPU. */
const rate = 10_000;

function guest(name: string, steps: number): DomainSpec {
  const program = { program: 'writer', seed: 20, steps, rate, workingSetPages: 65_536, skewPercent: 80 };
  return {
    name,
    uuid: randomUUID(),
    type: 'pv',
    maxMemoryKib: memoryMib * 1024,
    vcpus,
    config: JSON.stringify({ ...program, fillPercent: 75 }),
  };
}

/**
 * A trial checkpoint tells how long twenty will take on this machine, and so after how many steps the guests are to
 * stop: still running during all of them, and done soon after.
 */
async function chooseSteps({ host, directory }: Stage, signal: AbortSignal): Promise<number> {
  const domid = await host.create(guest('trial', 0), { paused: false });
  const path = join(directory, 'trial.dmi');
  const startedMs = performance.now();
  await checkpoint(host, 'trial', path, { mode: 'light', signal });
  const onceMs = performance.now() - startedMs;
  await host.destroy(domid);
  await unlink(path);
  return Math.round(((checkpointCount * onceMs * 1.4 + 3000) / 1000) * rate);
}

/** Twenty light checkpoints, older images removed; ends early if the guest reaches its last step. */
async function takeCheckpoints(
  stage: Stage,
  domid: number,
  steps: number,
  talk: DemoTalk,
): Promise<CheckpointResult[]> {
  const results: CheckpointResult[] = [];
  for (let i = 1; i <= checkpointCount; i++) {
    const counter = total(await stage.steps(domid));
    if (counter >= steps * vcpus) {
      talk.say(`     the guest was done before checkpoint ${i}: this machine slowed down meanwhile`);
      break;
    }
    const path = join(stage.directory, `checkpoint-${i}.dmi`);
    const result = await checkpoint(stage.host, 'sleeper', path, { mode: 'light', signal: talk.signal });
    const onward = total(await stage.steps(domid)) - counter;
    talk.say(
      `     ${String(i).padStart(2)}  paused ${formatDuration(result.pauseMs).padEnd(9)} ` +
        `${formatBytes(result.memoryBytes)} in ${formatDuration(result.elapsedMs).padEnd(7)} ` +
        `counter went on by ${formatCount(onward)} to ${formatCount(counter + onward)}`,
    );
    results.push(result);
    await unlink(path);
  }
  return results;
}

function total(steps: readonly number[]): number {
  return steps.reduce((sum, done) => sum + done, 0);
}

/** Between the two it waits for `othersAreDone`, so that the restore is measured while nothing else works. */
async function saveAndRestore(
  stage: Stage,
  othersAreDone: () => Promise<void>,
  talk: DemoTalk,
): Promise<{ saved: SaveResult; restored: RestoreResult }> {
  const { host, directory } = stage;
  const path = join(directory, 'sleeper.dmi');
  const saved = await save(host, 'sleeper', path, { then: 'destroy', signal: talk.signal });
  const left = await host.list();
  if (left.some(({ name }) => name === 'sleeper'))
    throw new DormouseError('INTERNAL', 'the saved guest is still there');
  talk.say(
    `4. Saved and destroyed: ${formatBytes(saved.memoryBytes)} of memory in a file of ` +
      `${formatBytes(saved.storedBytes)}, ${formatDuration(saved.elapsedMs)}. No domain of that name is left.`,
  );
  await othersAreDone();
  const restored = await restore(host, path, { paused: false, signal: talk.signal });
  talk.say(
    `5. "untouched" has done its steps. Restored from the file in ${formatDuration(restored.elapsedMs)}, as domain ` +
      `${restored.domid};\n   it goes on where it was, on other machine frames.`,
  );
  return { saved, restored };
}

async function play(stage: Stage, talk: DemoTalk): Promise<Omit<DemoResult, 'elapsedMs'>> {
  const { host } = stage;
  talk.say(`1. ${host.description}: a software hypervisor in a process of its own. No Xen, no root needed.`);
  const steps = await chooseSteps(stage, talk.signal);
  const domid = await host.create(guest('sleeper', steps), { paused: true });
  const twin = await host.create(guest('untouched', steps), { paused: true });
  await host.unpause(domid);
  await host.unpause(twin);
  talk.say(
    `2. Two guests of ${memoryMib} MiB and ${vcpus} vCPUs run the same program: each step writes to their memory, and\n` +
      `   after ${formatCount(steps)} steps a vCPU they stop. "untouched" is left alone; all else happens to "sleeper".`,
  );
  talk.say(
    `3. ${checkpointCount} light checkpoints while it runs, each a whole image of its memory. The guest stands still only\n` +
      '   for the pause; that it goes on meanwhile is seen in its own step counter:',
  );
  const checkpoints = await takeCheckpoints(stage, domid, steps, talk);
  const mostMs = (steps / rate) * 4000 + 30_000;
  const { saved, restored } = await saveAndRestore(stage, () => stage.untilSteps(twin, steps, mostMs), talk);
  await stage.untilSteps(restored.domid, steps, mostMs);
  const digest = (await digestDomain(host, String(restored.domid), { signal: talk.signal })).digest;
  const expected = (await digestDomain(host, String(twin), { signal: talk.signal })).digest;
  if (digest !== expected)
    throw new DormouseError('INTERNAL', `the guests differ: ${digest} restored, ${expected} untouched`);
  talk.say(`6. Both guests have done all their steps. Digest of all memory and registers:`);
  talk.say(`     sleeper    ${digest}`);
  talk.say(`     untouched  ${expected}`);
  talk.say('   They are identical: not one bit was lost or changed on the way.');
  await host.destroy(restored.domid);
  await host.destroy(twin);
  const rows = reportRows({ checkpoints, saved, restored, limits: await measureLimits(saved.path) });
  return { identical: true, digest, checkpoints: checkpoints.length, rows, table: renderReport(rows) };
}

/** By the time an error leaves the demo, its guests are gone with their host. */
function asOfTheDemo(thrown: unknown): never {
  const error = asDormouseError(thrown);
  const { message, place, exitCode } = error;
  throw new DormouseError(error.code, message, { cause: error.cause, place, exitCode, guest: 'none' });
}

/** Runs the demo on a stage of its own; about a minute. INTERNAL if the restored guest is not what it must be. */
export async function runDemo(talk: DemoTalk): Promise<DemoResult> {
  const startedMs = performance.now();
  talk.say(
    'dormouse demo: a guest is checkpointed while it runs, saved, destroyed, restored, and then compared',
  );
  talk.say('with one that nobody touched. It takes about a minute and leaves nothing behind.');
  const result = await onStage(talk.signal, (stage) => play(stage, talk)).catch(asOfTheDemo);
  const elapsedMs = performance.now() - startedMs;
  talk.say(`7. The host is stopped and its files are removed. All this took ${formatDuration(elapsedMs)}.\n`);
  return { ...result, elapsedMs };
}

/** Where the demo plays: a private run directory, an embedded host of its own, room for images. Gone afterwards. */
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { freemem, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { notice } from '../notice.js';
import { formatBytes } from '../render/units.js';
import { DormouseError } from '../errors.js';
import type { Host } from '../host/contract.js';
import type { EmbeddedHost } from '../host/embedded/host.js';
import { startHost, stopHost } from '../host/embedded/lifecycle.js';
import { openEmbeddedHost } from '../host/open/open_host.js';

const gib = 2 ** 30;
const hostName = 'demo';
/** Two guests of 1 GiB and what copy-on-write puts aside. */
const machineBytes = 4 * gib;
const neededBytes = 3 * gib;

export interface Stage {
  readonly directory: string;
  readonly host: Host;
  /** Steps each vCPU of the guest has done. */
  steps(domid: number): Promise<readonly number[]>;
  /** Waits until every vCPU has done `steps`; CANCELLED if the signal comes first. */
  untilSteps(domid: number, steps: number, timeoutMs: number): Promise<void>;
}

/** Runs `play` on a stage and clears it in every case. NO_SPACE, NO_MEMORY if there is no room for it. */
export async function onStage<T>(signal: AbortSignal, play: (stage: Stage) => Promise<T>): Promise<T> {
  const before = { run: process.env.DORMOUSE_RUN_DIR, keys: process.env.DORMOUSE_KEY_DIR };
  const directory = await mkdtemp(join(tmpdir(), 'dormouse-demo-'));
  process.env.DORMOUSE_RUN_DIR = directory;
  process.env.DORMOUSE_KEY_DIR = join(directory, 'keys');
  try {
    await checkRoom(directory);
    await startHost({ name: hostName, memoryBytes: machineBytes });
    const host = await openEmbeddedHost(hostName);
    try {
      return await play(stageOf(signal, directory, host));
    } finally {
      await host.close();
    }
  } finally {
    await stopHost(hostName, { force: true }).catch((thrown: unknown) => {
      notice(`the demo's host did not stop: ${String(thrown)}`);
    });
    putBack('DORMOUSE_RUN_DIR', before.run);
    putBack('DORMOUSE_KEY_DIR', before.keys);
    await rm(directory, { recursive: true, force: true });
  }
}

function putBack(name: string, value: string | undefined): void {
  if (value === undefined) Reflect.deleteProperty(process.env, name);
  else process.env[name] = value;
}

async function checkRoom(directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < neededBytes)
    throw new DormouseError(
      'NO_SPACE',
      `the demo needs ${formatBytes(neededBytes)} in ${tmpdir()}, which has ${formatBytes(bavail * bsize)}; set TMPDIR`,
      { guest: 'none' },
    );
  if (freemem() < neededBytes)
    throw new DormouseError(
      'NO_MEMORY',
      `the demo needs ${formatBytes(neededBytes)} of memory, ${formatBytes(freemem())} is free`,
      { guest: 'none' },
    );
}

function stageOf(signal: AbortSignal, directory: string, host: EmbeddedHost): Stage {
  const steps = async (domid: number): Promise<readonly number[]> => (await host.progress(domid)).steps;
  return {
    directory,
    host,
    steps,
    async untilSteps(domid, wanted, timeoutMs) {
      const deadlineMs = performance.now() + timeoutMs;
      while (!(await steps(domid)).every((done) => done >= wanted)) {
        if (signal.aborted) throw new DormouseError('CANCELLED', 'the demo was cancelled', { guest: 'none' });
        if (performance.now() > deadlineMs)
          throw new DormouseError('INTERNAL', `the guest did not reach step ${wanted} in time`);
        await sleep(50);
      }
    },
  };
}

/**
 * One pause of the xen host over a Xen of files, as test/support/fake_xen.c has it, run with that preloaded: node xen_pauses.js ADDON
 * WATCHER RUN_DIR SCENE, which is JSON. One line of JSON says what was seen.
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { asDormouseError, DormouseError } from '../../src/errors.js';
import { XenHost } from '../../src/host/xen/host.js';
import { XenLeases } from '../../src/host/xen/leases.js';
import type { XenNative } from '../../src/host/xen/native.js';
import type { XenXenstore } from '../../src/host/xen/xenstore.js';
import { steps } from '../../src/worker/steps.js';

export interface PauseScene {
  /** Without a log. */
  readonly content?: boolean;
  readonly does?: 'hold';
  /** With `frozen`, which throws. */
  readonly frozen?: 'good' | 'throws';
  /** In `standing`; and `dies`: the domain is gone by then. */
  readonly throws?: 'error' | 'text' | 'dies';
  readonly maxPages?: number;
  /** Files of fake_xen.c that are there from the pause on. */
  readonly files?: readonly string[];
}

export interface PauseSeen {
  readonly outcome: string;
  /** In the pause and around it. */
  readonly calls: readonly string[];
  readonly pauses: number;
  readonly journal: readonly string[];
  /** Once the lease has ended. */
  readonly later: { readonly calls: readonly string[]; readonly pauses: number };
}

const dir = process.env['FAKE_XEN'] ?? '';
const file = (name: string): string => join(dir, name);
const linesOf = (path: string): string[] =>
  existsSync(path) ? readFileSync(path, 'utf8').split('\n').filter(Boolean) : [];
const calls = (): string[] => {
  const lines = linesOf(file('calls'));
  writeFileSync(file('calls'), '');
  return lines;
};
const pauses = (): number => readFileSync(file('pauses')).length;

const [addon = '', watcher = '', runDir = '', scene = '{}'] = process.argv.slice(2);
const {
  content = false,
  does,
  frozen: late,
  throws,
  maxPages = 64,
  files = [],
} = JSON.parse(scene) as PauseScene;
const api = createRequire(import.meta.url)(addon) as XenNative;
api.open();
const quiet = (): void => undefined;
const store = {
  read: () => Promise.resolve(null),
  list: () => Promise.resolve([]),
  close: quiet,
} as unknown as XenXenstore;
const host = new XenHost(api, '4_17', store, new XenLeases(runDir, watcher, quiet), quiet);
const lease = await host.acquire(5, 'checkpoint');
const memory = await host.openMemory(5);
const tracker = content ? null : await host.tracker(lease);
const live = steps().liveCreate(64, content, 64);

function standing(): void {
  writeFileSync(file('calls'), 'standing\n', { flag: 'a' });
  if (throws === 'dies') renameSync(file('uuid'), file('was'));
  // eslint-disable-next-line @typescript-eslint/only-throw-error -- as anybody's code may
  if (throws === 'text') throw 'odd';
  if (throws) throw new DormouseError('PAGE_TABLE_INVALID', 'a table');
}

function frozen(): void {
  writeFileSync(file('calls'), 'frozen\n', { flag: 'a' });
  if (late === 'throws') throw new DormouseError('COMMAND_FAILED', 'a disk');
}

async function outcomeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (thrown) {
    return asDormouseError(thrown).code;
  }
}

calls();
for (const name of files) writeFileSync(file(name), '');
const outcome = await outcomeOf(() =>
  does === 'hold'
    ? host.holdPaused(lease)
    : host.captureStopped(lease, {
        ...{ memory, tracker, live, maxPages, standing },
        ...(late && { frozen }),
      }),
);
const seen = { outcome, calls: calls(), pauses: pauses(), journal: linesOf(join(runDir, '5.journal')) };
for (const name of files) rmSync(file(name), { force: true });
if (throws === 'dies') renameSync(file('was'), file('uuid'));
steps().liveRelease(live);
memory.close();
await tracker?.off();
await lease.release();
process.stdout.write(`${JSON.stringify({ ...seen, later: { calls: calls(), pauses: pauses() } })}\n`);

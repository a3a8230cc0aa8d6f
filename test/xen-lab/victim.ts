/**
 * A process to be killed, in dom0: reads one request, a line of JSON, and works on it as the command line would. Each thing it
 * sees is a line on standard output: `ready`, `> call` and `< call` around each call of the host, `p phase` for progress,
 * `done`.
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { Host } from '../../src/host/contract.js';
import { openXenHost } from '../../src/host/xen/host.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { warmWorkers } from '../../src/worker/pool.js';

export type VictimVerb = 'save' | 'save -c' | 'light' | 'cooperative' | 'restore';

export interface VictimRequest {
  readonly verb: VictimVerb;
  readonly guest: string;
  readonly image: string;
  /** Name of the restored domain. */
  readonly name: string;
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** The host, with a line before and after each of its calls. */
function told(host: Host): Host {
  return new Proxy(host, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        say(`> ${String(key)}`);
        const result: unknown = Reflect.apply(value, target, args);
        if (result instanceof Promise) void result.then(() => say(`< ${String(key)}`)).catch(() => undefined);
        return result;
      };
    },
  });
}

async function work(host: Host, { verb, guest, image, name }: VictimRequest): Promise<void> {
  let share = -1;
  const onProgress = (progress: { phase: string; donePages: number; totalPages: number }): void => {
    const now = Math.floor((10 * progress.donePages) / Math.max(1, progress.totalPages));
    if (now !== share) say(`p ${progress.phase} ${now}`);
    share = now;
  };
  if (verb === 'save') await save(host, guest, image, { then: 'destroy', onProgress });
  else if (verb === 'save -c') await save(host, guest, image, { then: 'resume', onProgress });
  else if (verb === 'restore') await restore(host, image, { paused: false, name, onProgress });
  else await checkpoint(host, guest, image, { mode: verb, onProgress });
}

await warmWorkers();
const lines = createInterface({ input: process.stdin });
say('ready');
const [line] = (await once(lines, 'line')) as [string];
const host = await openXenHost();
say('open');
await work(told(host), JSON.parse(line) as VictimRequest);
say('done');
await host.close();
say('closed');
process.exit(0);

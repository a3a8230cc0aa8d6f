/**
 * The program libxl runs as its save helper. Descriptors 0 and 1 are libxl's: nothing else may use them. The guest's user waits
 * while it starts, so that only what the verb needs is loaded.
 */
import { constants } from 'node:os';
import { asDormouseError } from '../errors.js';
import { parseArguments } from './arguments.js';
import { LibxlChannel, logLevel } from './channel.js';

const { errno } = constants;
/** How long what was cancelled may take to end. */
const cancelMs = 10_000;

function errnoOf(thrown: unknown): number {
  const { code } = asDormouseError(thrown);
  if (code === 'NO_MEMORY') return errno.ENOMEM;
  if (code === 'NO_SPACE') return errno.ENOSPC;
  if (code === 'CANCELLED') return errno.EINTR;
  return errno.EINVAL;
}

async function main(): Promise<void> {
  const args = parseArguments(process.argv.slice(2));
  const channel = new LibxlChannel();
  const cancel = new AbortController();
  process.on('SIGTERM', () => {
    cancel.abort();
    // For what does not end by itself, as all should. What is open then is undone by the lease's watcher, and by libxl.
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), cancelMs).unref();
  });
  try {
    if (args.verb === 'save') {
      const { saveDomain } = await import('./save_domain.js');
      await saveDomain(args, channel, cancel.signal);
    } else {
      const { restoreDomain } = await import('./restore_domain.js');
      await restoreDomain(args, channel, cancel);
    }
  } catch (thrown) {
    const { code, message } = asDormouseError(thrown);
    channel.log(logLevel.error, `dormouse: ${message} (${code})`);
    await channel.complete(-1, errnoOf(thrown));
    return;
  }
  await channel.complete(0, 0);
}

async function run(): Promise<void> {
  try {
    await main();
  } catch (thrown) {
    process.stderr.write(`dormouse-save-helper: ${asDormouseError(thrown).message}\n`);
    process.exitCode = 1;
  } finally {
    const { closeWorkers } = await import('../worker/pool.js');
    await closeWorkers();
  }
}

void run();

/** The program libxl runs as its save helper. Descriptors 0 and 1 are libxl's: nothing else may use them. */
import { constants } from 'node:os';
import { asDormouseError } from '../errors.js';
import { parseArguments } from './arguments.js';
import { LibxlChannel, logLevel } from './channel.js';
import { restoreDomain } from './restore_domain.js';
import { saveDomain } from './save_domain.js';
import { closeWorkers } from '../worker/pool.js';

const { errno } = constants;

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
  process.on('SIGTERM', () => cancel.abort());
  try {
    if (args.verb === 'save') await saveDomain(args, channel, cancel.signal);
    else await restoreDomain(args, channel, cancel);
  } catch (thrown) {
    const { code, message } = asDormouseError(thrown);
    channel.log(logLevel.error, `dormouse: ${message} (${code})`);
    await channel.complete(-1, errnoOf(thrown));
    return;
  }
  await channel.complete(0, 0);
}

try {
  await main();
} catch (thrown) {
  process.stderr.write(`dormouse-save-helper: ${asDormouseError(thrown).message}\n`);
  process.exitCode = 1;
} finally {
  await closeWorkers();
}

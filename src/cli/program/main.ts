/** The process around the command line: signals, its outputs, the exit code. */
import { outputs, written } from './output.js';
import { runCli } from './run.js';
import { engine } from '../services.js';

const controller = new AbortController();
let cancellable = false;

function onSignal(name: 'SIGHUP' | 'SIGINT' | 'SIGTERM', exitCode: number): void {
  if (!cancellable || controller.signal.aborted) process.exit(exitCode);
  controller.abort(name);
}
process.on('SIGHUP', () => onSignal('SIGHUP', 129));
process.on('SIGINT', () => onSignal('SIGINT', 130));
process.on('SIGTERM', () => onSignal('SIGTERM', 143));

const { stdout, stderr } = outputs();

async function main(): Promise<void> {
  const exitCode = await runCli(process.argv.slice(2), {
    stdout,
    stderr,
    services: engine,
    signal: controller.signal,
    cancellable: (is) => (cancellable = is),
  });
  for (const stream of [stdout, stderr]) await written(stream, '');
  process.exit(exitCode);
}

void main();

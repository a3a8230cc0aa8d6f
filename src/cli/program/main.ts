/** The process around the command line: signals, a broken pipe, the exit code. */
import { runCli } from './run.js';
import { engine } from '../services.js';

const controller = new AbortController();
let cancellable = false;

function onSignal(name: 'SIGINT' | 'SIGTERM', exitCode: number): void {
  if (!cancellable || controller.signal.aborted) process.exit(exitCode);
  controller.abort(name);
}
process.on('SIGINT', () => onSignal('SIGINT', 130));
process.on('SIGTERM', () => onSignal('SIGTERM', 143));

/** Whoever reads us may stop reading (`| head`): that is no error. */
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });

async function main(): Promise<void> {
  const exitCode = await runCli(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    services: engine,
    signal: controller.signal,
    cancellable: (is) => (cancellable = is),
  });
  for (const stream of [process.stdout, process.stderr])
    await new Promise<void>((written) => stream.write('', () => written()));
  process.exit(exitCode);
}

void main();

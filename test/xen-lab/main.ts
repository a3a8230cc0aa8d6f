/**
 * `npm run lab`: boots a Xen host and gives a shell in its dom0. With standard input that is no terminal, runs it as a script
 * instead and ends with its exit code. Options: --memory MIB, --dom0 MIB, --vcpus N, --peers 1.
 */
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { text } from 'node:stream/consumers';
import { startLab, type Lab, type LabOptions } from './lab.js';
import { endWithParent } from './process.js';

/** Ctrl-] leaves, as with telnet and xl console. */
const leaveByte = 0x1d;
const dayMs = 86_400_000;

function options(): LabOptions {
  const flag = { type: 'string' } as const;
  const { values } = parseArgs({ options: { memory: flag, dom0: flag, vcpus: flag, peers: flag } });
  return {
    lifeMs: dayMs,
    peers: values.peers === '1' ? 1 : 0,
    ...(values.memory === undefined ? {} : { memoryMib: Number(values.memory) }),
    ...(values.dom0 === undefined ? {} : { dom0Mib: Number(values.dom0) }),
    ...(values.vcpus === undefined ? {} : { dom0Vcpus: Number(values.vcpus) }),
  };
}

async function script(lab: Lab): Promise<number> {
  const source = await text(process.stdin);
  const result = await lab.exec(source, {
    timeoutMs: dayMs,
    onStdout: (bytes) => process.stdout.write(bytes),
  });
  process.stderr.write(result.stderr);
  return result.code;
}

function shell(lab: Lab): Promise<number> {
  const socket = connect(lab.consoleSocket);
  process.stdin.setRawMode(true);
  socket.on('data', (bytes: Buffer) => process.stdout.write(bytes));
  process.stdin.on('data', (bytes: Buffer) => {
    if (bytes.includes(leaveByte)) socket.end();
    else socket.write(bytes);
  });
  socket.write('\n');
  return new Promise((resolve) => {
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      process.stdin.setRawMode(false);
      process.stdin.pause();
      resolve(0);
    });
  });
}

async function main(): Promise<number> {
  endWithParent();
  process.stderr.write('lab: starting a Xen host; this takes about ten seconds ...\n');
  const lab = await startLab(options());
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => void lab.stop().finally(() => process.exit(130)));
  try {
    if (!process.stdin.isTTY) return await script(lab);
    process.stderr.write(
      'lab: a shell in dom0 follows. Ctrl-] leaves it and stops the host. Configurations of guests go to /domu, their disks and\n' +
        'lab: images to /images; the project is on /project, and its command is dormouse.\n',
    );
    return await shell(lab);
  } finally {
    const logs = await lab.stop();
    process.stderr.write(`\nlab: stopped; console log: ${logs.join(' ')}\n`);
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}

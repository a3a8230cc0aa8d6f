/** Runs command lines inside the test's process, on a fake host or on the real engine. */
import { Writable } from 'node:stream';
import { DormouseError } from '../../src/errors.js';
import { runCli } from '../../src/cli/program/run.js';
import type { Services } from '../../src/cli/services.js';
import type { FakeHost } from './fake_host.js';

export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

class Sink extends Writable {
  text = '';
  readonly isTTY = false;
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

function missing(name: string): never {
  throw new DormouseError('INTERNAL', `the test gave no ${name}`);
}

/** Services of which only those given work. */
export function services(host: FakeHost, over: Partial<Services> = {}): Services {
  return {
    openHost: () => Promise.resolve(host),
    startHost: () => missing('startHost'),
    stopHost: () => missing('stopHost'),
    hostStatus: () => missing('hostStatus'),
    save: () => missing('save'),
    restore: () => missing('restore'),
    restorePoint: () => missing('restorePoint'),
    checkImage: () => missing('checkImage'),
    signerState: () => missing('signerState'),
    keys: {
      list: () => missing('keys.list'),
      show: () => missing('keys.show'),
      trust: () => missing('keys.trust'),
      forget: () => missing('keys.forget'),
    },
    checkpoint: () => missing('checkpoint'),
    rollback: () => missing('rollback'),
    rollbackToPoint: () => missing('rollbackToPoint'),
    bisect: () => missing('bisect'),
    protect: () => missing('protect'),
    listPoints: () => missing('listPoints'),
    prunePoints: () => missing('prunePoints'),
    pinPoint: () => missing('pinPoint'),
    verifyPoints: () => missing('verifyPoints'),
    diffPoints: () => missing('diffPoints'),
    exportPoint: () => missing('exportPoint'),
    flattenPoint: () => missing('flattenPoint'),
    dumpCore: () => missing('dumpCore'),
    digestDomain: () => missing('digestDomain'),
    digestImage: () => missing('digestImage'),
    inspectImage: () => missing('inspectImage'),
    verifyImage: () => missing('verifyImage'),
    detectFormat: () => missing('detectFormat'),
    convertFromXen: () => missing('convertFromXen'),
    convertToXen: () => missing('convertToXen'),
    demo: () => missing('demo'),
    ...over,
  };
}

export async function cli(given: Services, argv: readonly string[], signal?: AbortSignal): Promise<Ran> {
  const [stdout, stderr] = [new Sink(), new Sink()];
  const exitCode = await runCli(argv, {
    stdout,
    stderr,
    services: given,
    signal: signal ?? new AbortController().signal,
    cancellable: () => undefined,
  });
  return { exitCode, stdout: stdout.text, stderr: stderr.text };
}

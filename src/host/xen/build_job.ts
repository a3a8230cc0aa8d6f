/**
 * Building a domain through `xl restore`: libxl makes the domain, its devices and its xenstore nodes, and runs our save helper,
 * which fills it from the image. What xl reads is a save file that holds the configuration and, for pages, a nonce.
 */
import { notice } from '../../notice.js';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../addon.js';
import { asDormouseError, DormouseError } from '../../errors.js';
import { frameConfig } from '../../xenstream/standard_stream.js';
import { libxlRecord, libxlVersion, xlMandatoryFlags } from '../../xenstream/stream_format.js';
import { libxlHead, paddedRecord, xlHead } from '../../xenstream/stream_writer.js';
import { buildConfig } from '../../xenstream/xl_config.js';
import type { BuildOptions, DomainSpec, ImageToBuild } from '../contract.js';
import {
  decodeReport,
  encodeLine,
  jobMagic,
  jobSocketVariable,
  type JobReport,
  nonceBytes,
} from './job_wire.js';
import { type BuildLease, startTime } from './leases.js';
import { xl } from './xl.js';

export const helperPath = join(packageRoot, 'bin/dormouse-save-helper');
const maxOutput = 16_384;

/** A save file without a guest's pages. */
function saveFileOf(config: string, nonce: Buffer): Buffer {
  const { configJson, streamV2 } = xlMandatoryFlags;
  return Buffer.concat([
    ...xlHead({
      xl: {
        mandatoryFlags: configJson | streamV2,
        optionalFlags: 0,
        optionalData: frameConfig(config),
      },
    }),
    libxlHead({ libxl: { version: libxlVersion, options: 0 } }),
    ...paddedRecord(libxlRecord.libxcContext, Buffer.alloc(0)),
    jobMagic,
    nonce,
    ...paddedRecord(libxlRecord.end, Buffer.alloc(0)),
  ]);
}

/** The parent's end of a job: gives it to the helper, and keeps what the helper says. */
class JobServer {
  #domid: number | undefined;
  #failure: DormouseError | undefined;
  #built = false;
  #helper: Socket | undefined;
  #cancelled = false;

  private constructor(
    private readonly server: Server,
    private readonly job: string,
    private readonly options: BuildOptions,
  ) {
    server.on('connection', (socket) => this.#serve(socket));
  }

  static async listen(path: string, job: string, options: BuildOptions): Promise<JobServer> {
    const server = createServer();
    const made = new JobServer(server, job, options);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    return made;
  }

  get domid(): number | undefined {
    return this.#domid;
  }
  get failure(): DormouseError | undefined {
    return this.#failure;
  }
  get built(): boolean {
    return this.#built;
  }

  /** The helper gives up, and libxl removes the domain. */
  cancel(): void {
    this.#cancelled = true;
    this.#helper?.destroy();
  }

  close(): void {
    this.server.close();
    this.#helper?.destroy();
  }

  #serve(socket: Socket): void {
    if (this.#helper !== undefined || this.#cancelled) {
      socket.destroy();
      return;
    }
    this.#helper = socket;
    socket.on('error', () => undefined);
    const lines = createInterface({ input: socket });
    lines.on('error', () => undefined);
    lines.on('line', (line) => this.#take(line));
    socket.write(this.job);
  }

  #take(line: string): void {
    let report: JobReport;
    try {
      report = decodeReport(line);
    } catch (thrown) {
      this.#failure ??= asDormouseError(thrown);
      this.cancel();
      return;
    }
    if (report.kind === 'started') this.#domid = report.domid;
    else if (report.kind === 'progress') this.options.onProgress?.(report.progress);
    else if (report.kind === 'built') this.#built = true;
    else
      this.#failure ??= new DormouseError(report.code, report.message, {
        place: report.place,
        guest: 'none',
      });
  }
}

interface XlOutcome {
  readonly code: number | null;
  readonly output: string;
}

/**
 * Runs `xl restore` in a session of its own: a Ctrl-C is for us, who have the helper give up in good order. What it says goes
 * to a file, as a pipe would break, and kill it, if this process died.
 */
async function runXl(
  file: string,
  socketPath: string,
  paused: boolean,
  started: (pid: number) => void,
): Promise<XlOutcome> {
  const args = ['restore', ...(paused ? ['-p'] : []), file];
  const said = `${file}.log`;
  const log = openSync(said, 'wx', 0o600);
  try {
    const child = spawn('xl', args, {
      stdio: ['ignore', log, log],
      detached: true,
      env: { ...process.env, LIBXL_SAVE_HELPER: helperPath, [jobSocketVariable]: socketPath },
    });
    const exited = new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', resolve);
    });
    if (child.pid !== undefined) started(child.pid);
    const code = await exited;
    return { code, output: readFileSync(said, 'utf8').slice(-maxOutput).trim() };
  } catch (thrown) {
    const error = thrown as NodeJS.ErrnoException;
    const text =
      error.code === 'ENOENT' ? 'xl is not installed (apt-get install xen-utils-4.17)' : error.message;
    throw new DormouseError('HOST_LACKS', text, { cause: error });
  } finally {
    closeSync(log);
  }
}

function failureOf(job: JobServer, outcome: XlOutcome, signal: AbortSignal | undefined): DormouseError {
  if (signal?.aborted) return new DormouseError('CANCELLED', 'cancelled', { guest: 'none' });
  if (job.failure) return job.failure;
  const said = outcome.output.split('\n').filter((line) => /error|fail|cannot|unable/i.test(line));
  const why = (said.length > 0 ? said.slice(-6).join('; ') : outcome.output) || `exit code ${outcome.code}`;
  const code = /not enough free memory|failed to free memory/i.test(outcome.output)
    ? 'NO_MEMORY'
    : 'RESTORE_FAILED';
  return new DormouseError(code, `xl restore: ${why}`, { guest: 'none' });
}

/** As its user had asked. A domain that has ended meanwhile needs it no more. */
async function goOnBallooning(domid: number, targetKib: number): Promise<void> {
  await xl(['mem-set', String(domid), `${targetKib}k`]).catch((thrown: unknown) => {
    notice(`domain ${domid} runs, but was not told to give memory back: ${String(thrown)}`);
  });
}

/**
 * A new domain of an image. Returns its id. After an error the lease has it removed, as far as xl did not do that itself.
 */
export async function buildThroughXl(
  spec: DomainSpec,
  image: ImageToBuild,
  options: BuildOptions,
  lease: BuildLease,
): Promise<number> {
  const nonce = randomBytes(nonceBytes);
  let job: JobServer | undefined;
  const cancel = (): void => job?.cancel();
  try {
    const file = join(lease.dir, 'domain');
    const socketPath = join(lease.dir, 'job');
    const { config, targetKib } = buildConfig(spec, image.neededKib);
    writeFileSync(file, saveFileOf(config, nonce), { mode: 0o600 });
    const { path, imageId, root, mostPfns } = image;
    const line = encodeLine({ nonce: nonce.toString('hex'), path, imageId, root, mostPfns });
    job = await JobServer.listen(socketPath, line, options);
    options.signal?.addEventListener('abort', cancel);
    if (options.signal?.aborted) throw new DormouseError('CANCELLED', 'cancelled', { guest: 'none' });
    const outcome = await runXl(file, socketPath, options.paused, (pid) =>
      lease.note(`group ${pid} ${startTime(pid)}`),
    );
    if (outcome.code !== 0 || !job.built || job.domid === undefined)
      throw failureOf(job, outcome, options.signal);
    lease.strikeAll();
    if (targetKib !== null) await goOnBallooning(job.domid, targetKib);
    return job.domid;
  } finally {
    options.signal?.removeEventListener('abort', cancel);
    job?.close();
  }
}

/** The helper's end of a restore's job: see host/xen/job_wire.ts. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { asDormouseError, DormouseError } from '../errors.js';
import { decodeJob, encodeLine, type Job, jobSocketVariable, type JobReport } from '../host/xen/job_wire.js';

const answerTimeoutMs = 10_000;

function unavailable(why: string): DormouseError {
  return new DormouseError('RESTORE_FAILED', `the stream belongs to a \`dormouse restore\` that ${why}`);
}

export class JobClient {
  #closing = false;

  private constructor(
    private readonly socket: Socket,
    readonly job: Job,
    cancel: AbortController,
  ) {
    socket.on('error', () => undefined);
    socket.once('close', () => {
      if (!this.#closing) cancel.abort();
    });
  }

  /** The job of that nonce. From then on `cancel` is aborted if whoever gave it goes. */
  static async take(nonce: string, domid: number, cancel: AbortController): Promise<JobClient> {
    const path = process.env[jobSocketVariable];
    if (path === undefined) throw unavailable('is not the one this runs for');
    const socket = connect(path);
    const late = setTimeout(() => socket.destroy(), answerTimeoutMs);
    try {
      const lines = createInterface({ input: socket });
      lines.on('error', () => undefined);
      const answer = (await Promise.race([once(lines, 'line'), once(socket, 'close').then(() => [''])])) as [
        string,
      ];
      if (answer[0] === '') throw unavailable('has ended');
      const job = decodeJob(answer[0]);
      if (job.nonce !== nonce) throw unavailable('is another one');
      const client = new JobClient(socket, job, cancel);
      client.report({ kind: 'started', domid });
      return client;
    } catch (thrown) {
      socket.destroy();
      if (thrown instanceof DormouseError) throw thrown;
      throw unavailable(`cannot be reached: ${(thrown as Error).message}`);
    } finally {
      clearTimeout(late);
    }
  }

  report(report: JobReport): void {
    this.socket.write(encodeLine(report));
  }

  fail(thrown: unknown): void {
    const { code, message, place } = asDormouseError(thrown);
    this.report({ kind: 'failed', code, message, place });
  }

  /** Sends what was reported, and ends. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.socket.end(resolve);
      this.socket.once('close', () => resolve());
    });
    this.socket.destroy();
  }
}

import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from './errors.js';
import { encode, FrameReader, json, Kind, type Done, type Frame } from './wire.js';

export interface ExecOptions {
  /** After this many milliseconds the script and all it started in its process group are killed. Default 60,000. */
  timeoutMs?: number;
  /** Called with each piece of standard output as it arrives. */
  onStdout?: (bytes: Buffer) => void;
}

export interface ExecResult {
  code: number;
  stdout: string;
  stderr: string;
}

interface Channel {
  onData: (bytes: Buffer) => void;
  onStderr: (bytes: Buffer) => void;
  resolve: (done: Done) => void;
  reject: (error: Error) => void;
}

/** The agent's clock is not ours: how much later than the agent we give up ourselves. */
const graceMs = 20_000;
const chunkBytes = 256 * 1024;
const transferMs = 600_000;

/** One connection to an agent. Every request has an end: its answer, its timeout, or the connection's loss. */
export class AgentClient {
  private readonly channels = new Map<number, Channel>();
  private readonly reader = new FrameReader();
  private nextChannel = 1;
  private lost: LabError | undefined;

  private constructor(private readonly socket: Socket) {
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => {
      for (const frame of this.reader.push(bytes)) this.take(frame);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.lose(new LabError('the connection to dom0 was lost')));
  }

  /** Connects, trying until `deadlineMs` from now or until `gone` says that trying is useless. Throws LabError. */
  static async connect(
    port: number,
    deadlineMs: number,
    gone: () => string | undefined,
  ): Promise<AgentClient> {
    const end = Date.now() + deadlineMs;
    while (Date.now() < end) {
      const reason = gone();
      if (reason !== undefined) throw new LabError(reason);
      const client = await tryConnect(port);
      if (client !== undefined) return new AgentClient(client);
      await sleep(250);
    }
    throw new LabError(`dom0 did not answer within ${deadlineMs} ms`);
  }

  /** Runs a shell script as root in dom0. Throws LabError when it had to be killed or dom0 went away. */
  async exec(script: string, options: ExecOptions = {}): Promise<ExecResult> {
    const timeoutMs = options.timeoutMs ?? 60_000;
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    const done = await this.request(Kind.exec, { script, timeoutMs }, timeoutMs + graceMs, {
      onData: (bytes) => {
        out.push(bytes);
        options.onStdout?.(bytes);
      },
      onStderr: (bytes) => err.push(bytes),
    }).done;
    const result = {
      code: done.code,
      stdout: Buffer.concat(out).toString(),
      stderr: Buffer.concat(err).toString(),
    };
    if (done.timedOut)
      throw new LabError(
        `killed after ${timeoutMs} ms: ${script}\n${(result.stdout + result.stderr).slice(-2000)}`,
      );
    return result;
  }

  /** Copies a file into dom0 with its mode. Throws LabError. */
  async put(localPath: string, remotePath: string): Promise<void> {
    const mode = statSync(localPath).mode & 0o777;
    const { channel, done } = this.request(Kind.put, { path: remotePath, mode }, transferMs);
    const failure = done.then(
      () => undefined,
      (error: unknown) => error,
    );
    for await (const bytes of createReadStream(localPath, { highWaterMark: chunkBytes })) {
      if (!this.channels.has(channel)) break;
      if (!this.socket.write(encode(Kind.data, channel, bytes as Buffer)))
        await Promise.race([new Promise((resolve) => this.socket.once('drain', resolve)), failure]);
    }
    this.socket.write(encode(Kind.end, channel));
    await done;
  }

  /** Copies a file out of dom0. Throws LabError. */
  async get(remotePath: string, localPath: string): Promise<void> {
    const file = createWriteStream(localPath);
    file.on('drain', () => this.socket.resume());
    file.on('close', () => this.socket.resume());
    const written = finished(file);
    // Seen below; until then a failure must not count as unhandled.
    written.catch(() => undefined);
    const { done } = this.request(Kind.get, { path: remotePath, from: 0 }, transferMs, {
      onData: (bytes) => {
        if (!file.write(bytes)) this.socket.pause();
      },
    });
    try {
      await done;
    } finally {
      file.end();
      await written;
    }
  }

  /** What a file in dom0 holds from byte `from` on. Throws LabError. */
  async read(remotePath: string, from = 0): Promise<Buffer> {
    const pieces: Buffer[] = [];
    const request = { path: remotePath, from };
    await this.request(Kind.get, request, transferMs, { onData: (bytes) => pieces.push(bytes) }).done;
    return Buffer.concat(pieces);
  }

  /** Ends the connection; the agent kills what still runs for it. */
  close(): void {
    this.socket.destroy();
  }

  private request(
    kind: Kind,
    content: object,
    limitMs: number,
    sinks: Partial<Pick<Channel, 'onData' | 'onStderr'>> = {},
  ): { channel: number; done: Promise<Done> } {
    const channel = this.nextChannel++;
    const done = new Promise<Done>((resolve, reject) => {
      if (this.lost !== undefined) {
        reject(this.lost);
        return;
      }
      const late = new LabError(`dom0 gave no answer within ${limitMs} ms: ${JSON.stringify(content)}`);
      const timer = setTimeout(() => this.settle(channel)?.reject(late), limitMs);
      this.channels.set(channel, {
        onData: sinks.onData ?? ignore,
        onStderr: sinks.onStderr ?? ignore,
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      this.socket.write(encode(kind, channel, content));
    });
    return { channel, done };
  }

  private settle(channel: number): Channel | undefined {
    const found = this.channels.get(channel);
    this.channels.delete(channel);
    return found;
  }

  private take(frame: Frame): void {
    if (frame.kind === Kind.data) this.channels.get(frame.channel)?.onData(frame.payload);
    else if (frame.kind === Kind.stderr) this.channels.get(frame.channel)?.onStderr(frame.payload);
    else if (frame.kind === Kind.done) this.settle(frame.channel)?.resolve(json(frame) as Done);
    else if (frame.kind === Kind.failed)
      this.settle(frame.channel)?.reject(new LabError((json(frame) as { message: string }).message));
  }

  private lose(reason: LabError): void {
    this.lost = reason;
    for (const channel of [...this.channels.keys()]) this.settle(channel)?.reject(reason);
  }
}

function ignore(): void {
  // A stream nobody asked for.
}

/** QEMU accepts the connection long before dom0 listens: only the agent's first frame proves that it is there. */
function tryConnect(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    const stop = (result: Socket | undefined): void => {
      clearTimeout(timer);
      socket.removeAllListeners();
      if (result === undefined) socket.on('error', ignore).destroy();
      resolve(result);
    };
    const timer = setTimeout(stop, 3000, undefined);
    const reader = new FrameReader();
    socket.on('data', (bytes: Buffer) => {
      if (reader.push(bytes).some((frame) => frame.kind === Kind.hello)) stop(socket);
    });
    socket.on('error', () => stop(undefined));
    socket.on('close', () => stop(undefined));
  });
}

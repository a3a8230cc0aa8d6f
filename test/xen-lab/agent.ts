/**
 * Runs in dom0: executes scripts and moves files for the caller of wire.ts, and answers the guests' datagrams.
 * usage: agent.js PORT
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { createReadStream, createWriteStream, type WriteStream } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { encode, FrameReader, json, Kind, type ExecRequest, type Frame } from './wire.js';

const echoPort = 7007;
const chunkBytes = 256 * 1024;
/** A daemon may have inherited the script's output: how long to wait for it to close once the script ended. */
const drainMs = 300;

class Session {
  private readonly reader = new FrameReader();
  private readonly children = new Map<number, ChildProcess>();
  private readonly files = new Map<number, WriteStream>();
  private readonly sources = new Set<Readable>();

  constructor(private readonly socket: Socket) {
    socket.setNoDelay(true);
    socket.on('drain', () => {
      for (const source of this.sources) source.resume();
    });
    socket.on('data', (bytes: Buffer) => {
      for (const frame of this.reader.push(bytes)) this.take(frame);
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      for (const child of this.children.values()) killGroup(child);
      for (const file of this.files.values()) file.destroy();
      for (const source of this.sources) source.destroy();
    });
    this.send(Kind.hello, 0, { node: process.version });
  }

  private send(kind: Kind, channel: number, content: Uint8Array | object): boolean {
    return this.socket.writable && this.socket.write(encode(kind, channel, content));
  }

  private take(frame: Frame): void {
    if (frame.kind === Kind.exec) this.exec(frame.channel, json(frame) as ExecRequest);
    else if (frame.kind === Kind.put) this.put(frame.channel, json(frame) as { path: string; mode: number });
    else if (frame.kind === Kind.get) this.get(frame.channel, json(frame) as { path: string; from: number });
    else if (frame.kind === Kind.data) this.write(frame);
    else if (frame.kind === Kind.end) this.files.get(frame.channel)?.end();
  }

  private exec(channel: number, request: ExecRequest): void {
    const child = spawn('/bin/sh', ['-c', request.script], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.children.set(channel, child);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child);
    }, request.timeoutMs);
    this.forward(child.stdout, channel, Kind.data);
    this.forward(child.stderr, channel, Kind.stderr);
    let finished = false;
    const finish = (code: number): void => {
      if (finished) return;
      finished = true;
      child.stdout.destroy();
      child.stderr.destroy();
      this.send(Kind.done, channel, { code, timedOut });
    };
    child.on('error', (error) => this.send(Kind.failed, channel, { message: error.message }));
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      this.children.delete(channel);
      const status = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      child.on('close', () => finish(status));
      setTimeout(finish, drainMs, status);
    });
  }

  /** Sends what a stream gives, as fast as the caller takes it. */
  private forward(source: Readable, channel: number, kind: Kind): void {
    this.sources.add(source);
    source.on('data', (bytes: Buffer) => {
      if (!this.send(kind, channel, bytes)) source.pause();
    });
    source.on('close', () => this.sources.delete(source));
  }

  private put(channel: number, request: { path: string; mode: number }): void {
    const file = createWriteStream(request.path, { mode: request.mode });
    this.files.set(channel, file);
    file.on('drain', () => this.socket.resume());
    file.on('close', () => this.socket.resume());
    file.on('error', (error) => {
      this.files.delete(channel);
      this.send(Kind.failed, channel, { message: error.message });
    });
    file.on('finish', () => {
      this.files.delete(channel);
      this.send(Kind.done, channel, { code: 0, timedOut: false });
    });
  }

  private write(frame: Frame): void {
    const file = this.files.get(frame.channel);
    if (file === undefined || file.write(frame.payload)) return;
    this.socket.pause();
  }

  private get(channel: number, request: { path: string; from: number }): void {
    const file = createReadStream(request.path, { start: request.from, highWaterMark: chunkBytes });
    this.forward(file, channel, Kind.data);
    file.on('error', (error) => this.send(Kind.failed, channel, { message: error.message }));
    file.on('end', () => this.send(Kind.done, channel, { code: 0, timedOut: false }));
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** Serves callers on a TCP port of `host` and, where asked to, the guests' echo port. Returns the port. */
export function serve(
  port: number,
  host: string,
  echo: boolean,
): Promise<{ port: number; close: () => void }> {
  const server = createServer((socket) => new Session(socket));
  if (echo) {
    const answers = createSocket('udp4');
    answers.on('message', (message, from) => answers.send(message, from.port, from.address));
    answers.on('error', (error) => console.error(`lab agent: echo: ${error.message}`));
    answers.bind(echoPort);
  }
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, host, () => {
      const address = server.address();
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : port,
        close: () => server.close(),
      });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await serve(Number(process.argv[2]), '0.0.0.0', true);
  console.log(`LAB AGENT ${process.uptime()}`);
}

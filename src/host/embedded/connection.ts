/** A tool's end of the protocol: requests go out as they come, replies are matched by id, events are handed on. */
import { connect, type Socket } from 'node:net';
import { DormouseError } from '../../errors.js';
import {
  encodeFrame,
  errorFromWire,
  FrameDecoder,
  type HostEvent,
  parseReply,
  protocolVersion,
} from './protocol.js';
import type { OpArgs, OpName, OpResults } from './ops.js';

/** How long a host may take to answer the greeting. It answers nothing else meanwhile, so it is alive or hung. */
const helloTimeoutMs = 5000;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class HostConnection {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #decoder = new FrameDecoder();
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<(event: HostEvent) => void, () => void>();
  #lastId = 0;
  #hostPid = 0;
  /** Why no further request can be answered. */
  #ended: DormouseError | undefined;

  private constructor(socket: Socket, name: string) {
    this.#socket = socket;
    this.#name = name;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('close', () => this.#fail(this.#died()));
    socket.on('error', (error) => this.#fail(this.#died(error)));
    this.#hold();
  }

  /**
   * Null where nobody listens on the socket, or is just ending. HOST_PROTOCOL where the host is of another version, HOST_UNAVAILABLE where
   * it does not answer.
   */
  static async open(path: string, name: string): Promise<HostConnection | null> {
    const socket = await connectSocket(path);
    if (!socket) return null;
    const connection = new HostConnection(socket, name);
    const timer = setTimeout(() => {
      connection.#fail(new DormouseError('HOST_UNAVAILABLE', `the embedded host '${name}' does not answer`));
    }, helloTimeoutMs);
    try {
      connection.#hostPid = (
        await connection.call('hello', { protocol: protocolVersion, pid: process.pid })
      ).pid;
      return connection;
    } catch (thrown) {
      socket.destroy();
      if (thrown instanceof DormouseError && thrown.code === 'HOST_DIED') return null;
      throw thrown;
    } finally {
      clearTimeout(timer);
    }
  }

  get hostPid(): number {
    return this.#hostPid;
  }

  /** Sends a request; rejects with what the host says, or HOST_DIED if the connection ends first. */
  call<N extends OpName>(op: N, args: OpArgs<N>): Promise<OpResults[N]> {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = ++this.#lastId;
    return new Promise<unknown>((resolve, reject) => {
      const frame = encodeFrame({ id, op, args });
      this.#pending.set(id, { resolve, reject });
      this.#hold();
      this.#socket.write(frame);
    }) as Promise<OpResults[N]>;
  }

  /**
   * Holds the process open until the returned function is called, as an open request does. `ended` is called if the connection ends
   * before, unless `close` ends it.
   */
  onEvent(listener: (event: HostEvent) => void, ended: () => void = () => undefined): () => void {
    this.#listeners.set(listener, ended);
    this.#hold();
    return () => {
      this.#listeners.delete(listener);
      this.#hold();
    };
  }

  /** Ends the connection once what was asked is answered. */
  async close(): Promise<void> {
    this.#ended ??= new DormouseError('HOST_UNAVAILABLE', 'the connection to the host is closed');
    if (this.#socket.closed) return;
    await new Promise<void>((resolve) => {
      this.#socket.once('close', () => resolve());
      this.#socket.ref().end();
    });
  }

  /** The connection by itself does not keep a process from ending; what waits for it, or for its end, does. */
  #hold(): void {
    if (this.#pending.size > 0 || this.#listeners.size > 0 || this.#ended) this.#socket.ref();
    else this.#socket.unref();
  }

  #died(cause?: Error): DormouseError {
    const text = `the embedded host '${this.#name}' ended; its guests went with it`;
    return new DormouseError('HOST_DIED', text, { cause });
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) this.#take(message);
    } catch (thrown) {
      this.#fail(thrown as DormouseError);
    }
  }

  #take(message: unknown): void {
    const reply = parseReply(message);
    if ('event' in reply) {
      for (const listener of [...this.#listeners.keys()]) listener(reply.event);
      return;
    }
    const pending = this.#pending.get(reply.id);
    this.#pending.delete(reply.id);
    this.#hold();
    if ('error' in reply) pending?.reject(errorFromWire(reply.error));
    else pending?.resolve(reply.ok);
  }

  #fail(error: DormouseError): void {
    const listeners = this.#ended ? [] : [...this.#listeners.values()];
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#socket.destroy();
    for (const ended of listeners) ended();
  }
}

/** A host that dies between our knock and its answer resets the connection. */
const NOBODY_LISTENS = new Set(['ENOENT', 'ECONNREFUSED', 'ECONNRESET']);

/** A connected socket, or null where there is no socket file or no process behind it. */
function connectSocket(path: string): Promise<Socket | null> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (NOBODY_LISTENS.has(error.code ?? '')) resolve(null);
      else
        reject(
          new DormouseError('HOST_UNAVAILABLE', `${path}: ${error.message}`, {
            cause: error,
            place: { path },
          }),
        );
    });
  });
}

/** The xenstore protocol (xen/io/xs_wire.h) over xenstored's Unix socket: requests, replies and watch events. */
import { connect, type Socket } from 'node:net';
import { asDormouseError, DormouseError } from '../../errors.js';
import { headerBytes, maxPayloadBytes, XenstoreDecoder } from './xenstore_decoder.js';
import { withoutTrailingNuls } from '../../domain/trailing_nuls.js';

export const messageType = {
  directory: 1,
  read: 2,
  watch: 4,
  unwatch: 5,
  transactionStart: 6,
  transactionEnd: 7,
  write: 11,
  remove: 13,
  watchEvent: 15,
  error: 16,
  resume: 18,
  directoryPart: 22,
} as const;

const answerTimeoutMs = 30_000;

/** xenstored refused a request; `errno` is a name such as ENOENT. */
export class XenstoreRefusal extends Error {
  constructor(readonly errno: string) {
    super(`xenstored says ${errno}`);
  }
}

interface Pending {
  readonly resolve: (payload: Buffer) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export interface Listeners {
  event(path: string, token: string): void;
  /** Once: nothing comes any more. */
  ended(error: DormouseError): void;
}

export class XenstoreConnection {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners: Listeners;
  #listening = false;
  readonly #decoder = new XenstoreDecoder();
  #lastId = 0;
  #ended: DormouseError | undefined;

  private constructor(socket: Socket, listeners: Listeners) {
    this.#socket = socket;
    this.#listeners = listeners;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(unavailable(error.message, error)));
    socket.on('close', () => this.#fail(unavailable('xenstored closed the connection')));
    socket.unref();
  }

  /** HOST_UNAVAILABLE where nobody listens. */
  static async open(path: string, listeners: Listeners): Promise<XenstoreConnection> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (error) => reject(unavailable(`${path}: ${error.message}`, error)));
    });
    socket.removeAllListeners('error');
    return new XenstoreConnection(socket, listeners);
  }

  /**
   * Sends a request and gives the payload of the reply. Parts are joined as they are: a string that is to end with a NUL
   * brings it. Throws XenstoreRefusal, or HOST_UNAVAILABLE where xenstored is gone or does not answer in 30 s.
   */
  request(type: number, parts: readonly string[], transaction = 0): Promise<Buffer> {
    if (this.#ended) return Promise.reject(this.#ended);
    const payload = Buffer.from(parts.join(''));
    if (payload.length > maxPayloadBytes) return Promise.reject(new XenstoreRefusal('E2BIG'));
    const id = (this.#lastId = (this.#lastId + 1) % 2 ** 31);
    const header = Buffer.alloc(headerBytes);
    [type, id, transaction, payload.length].forEach((word, i) => header.writeUInt32LE(word, 4 * i));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => this.#fail(unavailable(`xenstored does not answer (${answerTimeoutMs / 1000} s)`)),
        answerTimeoutMs,
      );
      this.#pending.set(id, { resolve, reject, timer });
      this.#hold();
      this.#socket.write(Buffer.concat([header, payload]));
    });
  }

  /** Whether events are waited for: then the connection keeps this process running. */
  listen(listening: boolean): void {
    this.#listening = listening;
    this.#hold();
  }

  #hold(): void {
    if (this.#listening || this.#pending.size > 0) this.#socket.ref();
    else this.#socket.unref();
  }

  close(): void {
    this.#fail(unavailable('the connection to xenstored is closed'));
  }

  #receive(chunk: Buffer): void {
    try {
      for (const { type, id, payload } of this.#decoder.take(chunk)) this.#take(type, id, payload);
    } catch (thrown) {
      this.#fail(asDormouseError(thrown));
    }
  }

  #take(type: number, id: number, payload: Buffer): void {
    if (type === messageType.watchEvent) {
      const [path, token] = payload.toString().split('\0');
      if (path !== undefined && token !== undefined) this.#listeners.event(path, token);
      return;
    }
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    this.#hold();
    if (type === messageType.error)
      pending.reject(new XenstoreRefusal(withoutTrailingNuls(payload.toString())));
    else pending.resolve(payload);
  }

  #fail(error: DormouseError): void {
    const first = this.#ended === undefined;
    this.#ended ??= error;
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(this.#ended);
    }
    this.#pending.clear();
    this.#socket.destroy();
    if (first) this.#listeners.ended(this.#ended);
  }
}

function unavailable(text: string, cause?: Error): DormouseError {
  return new DormouseError('HOST_UNAVAILABLE', `xenstore: ${text}`, { cause });
}

/** The host's end of one tool's connection: reads requests, answers them, and undoes what the tool held when it goes. */
import type { Socket } from 'node:net';
import * as z from 'zod';
import { DormouseError } from '../../errors.js';
import {
  encodeFrame,
  errorToWire,
  FrameDecoder,
  type HostEvent,
  parseRequest,
  protocolVersion,
} from './protocol.js';
import { isOpName, type OpArgs, type OpName, opSchemas, type OpResults } from './ops.js';
import type { Holder } from './leases.js';

const helloTimeoutMs = 10_000;
const endTimeoutMs = 1000;
/** A tool that leaves so much unread is cut off. */
const maxUnreadBytes = 256 * 1024 * 1024;
const maxWatches = 1024;
const maxTransactions = 64;

export type Handlers = {
  readonly [N in OpName]: (args: OpArgs<N>, session: Session) => OpResults[N] | Promise<OpResults[N]>;
};

export class Session implements Holder {
  pid = 0;
  readonly watches = new Map<number, () => void>();
  readonly transactions = new Set<number>();
  readonly #socket: Socket;
  readonly #handlers: Handlers;
  readonly #decoder = new FrameDecoder();
  readonly #helloTimer: NodeJS.Timeout;
  #greeted = false;

  constructor(socket: Socket, handlers: Handlers, ended: (session: Session) => void) {
    this.#socket = socket;
    this.#handlers = handlers;
    this.#helloTimer = setTimeout(() => socket.destroy(), helloTimeoutMs);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      clearTimeout(this.#helloTimer);
      ended(this);
    });
  }

  event(event: HostEvent): void {
    if (this.#greeted) this.#send({ event });
  }

  /** Closes once everything sent has gone out, or soon if the tool does not read it. */
  end(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#socket.closed) resolve();
      const timer = setTimeout(() => this.#socket.destroy(), endTimeoutMs);
      this.#socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      this.#socket.destroySoon();
    });
  }

  requireRoom(): void {
    if (this.watches.size >= maxWatches)
      throw new DormouseError('NO_MEMORY', `a connection may have ${maxWatches} watches`);
    if (this.transactions.size >= maxTransactions)
      throw new DormouseError('NO_MEMORY', `a connection may have ${maxTransactions} transactions`);
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) this.#serve(message);
    } catch (thrown) {
      // What follows cannot be understood, so it is told why and that is all.
      this.#send({ id: 0, error: errorToWire(thrown) });
      this.#socket.destroySoon();
    }
  }

  #serve(message: unknown): void {
    const { id, op, args } = parseRequest(message);
    if (!this.#greeted) this.#greet(op, args);
    // Runs at once, up to its first wait: requests of one connection take effect in the order they came in.
    this.#perform(op, args).then(
      (ok) => this.#send({ id, ok }),
      (thrown: unknown) => this.#send({ id, error: errorToWire(thrown) }),
    );
  }

  /** The one request that is read before its sender is known to speak this version. */
  #greet(op: string, args: unknown): void {
    const hello = z.object({ protocol: z.number(), pid: z.number().int().nonnegative() }).safeParse(args);
    if (op !== 'hello' || !hello.success)
      throw new DormouseError('HOST_PROTOCOL', 'the first request is hello');
    const { protocol, pid } = hello.data;
    if (protocol !== protocolVersion)
      throw new DormouseError(
        'HOST_PROTOCOL',
        `the host speaks version ${protocolVersion} of its protocol, the tool version ${protocol}`,
      );
    this.pid = pid;
    this.#greeted = true;
    clearTimeout(this.#helloTimer);
  }

  async #perform(op: string, args: unknown): Promise<unknown> {
    if (!isOpName(op)) throw new DormouseError('HOST_PROTOCOL', `the host knows no operation '${op}'`);
    const checked = opSchemas[op].safeParse(args);
    if (!checked.success)
      throw new DormouseError('HOST_PROTOCOL', `${op}: ${z.prettifyError(checked.error)}`);
    const handler = this.#handlers[op] as (args: unknown, session: Session) => unknown;
    return await handler(checked.data, this);
  }

  #send(message: unknown): void {
    if (this.#socket.destroyed) return;
    try {
      this.#socket.write(encodeFrame(message));
    } catch {
      this.#socket.destroy();
    }
    if (this.#socket.writableLength > maxUnreadBytes) this.#socket.destroy();
  }
}

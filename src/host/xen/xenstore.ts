/** The host contract's xenstore on real Xen. */
import { existsSync } from 'node:fs';
import { asDormouseError, DormouseError } from '../../errors.js';
import type { Xenstore } from '../contract.js';
import { messageType, XenstoreConnection, XenstoreRefusal } from './xenstore_wire.js';

type Nodes = Pick<Xenstore, 'read' | 'write' | 'list' | 'remove'>;

const socketPaths = ['/run/xenstored/socket', '/var/run/xenstored/socket', '/var/lib/xenstored/socket'];
const maxTransactionTries = 100;

/** XENSTORED_PATH, else the first of the usual places. */
export function xenstoreSocket(): string {
  const set = process.env['XENSTORED_PATH'];
  const path = set ?? socketPaths.find((candidate) => existsSync(candidate));
  if (path === undefined)
    throw new DormouseError('HOST_UNAVAILABLE', 'xenstored does not run on this machine (no socket)');
  return path;
}

/** A refusal as an error that says which node. */
function refused(thrown: unknown, path: string): unknown {
  if (!(thrown instanceof XenstoreRefusal)) return thrown;
  const code = thrown.errno === 'EACCES' || thrown.errno === 'EPERM' ? 'HOST_UNAVAILABLE' : 'HOST_LACKS';
  return new DormouseError(code, `xenstore ${path}: ${thrown.errno}`, { cause: thrown });
}

const isMissing = (thrown: unknown): boolean =>
  thrown instanceof XenstoreRefusal && thrown.errno === 'ENOENT';

/** Node operations inside one transaction (0 = none). */
function nodes(connection: XenstoreConnection, transaction: number): Nodes {
  const ask = (type: number, path: string, rest = ''): Promise<Buffer> =>
    connection.request(type, [path, '\0', rest], transaction);
  return {
    async read(path) {
      try {
        return (await ask(messageType.read, path)).toString();
      } catch (thrown) {
        if (isMissing(thrown)) return null;
        throw refused(thrown, path);
      }
    },
    async write(path, value) {
      try {
        await ask(messageType.write, path, value);
      } catch (thrown) {
        throw refused(thrown, path);
      }
    },
    async list(path) {
      try {
        return split(await ask(messageType.directory, path));
      } catch (thrown) {
        if (isMissing(thrown)) return [];
        if (thrown instanceof XenstoreRefusal && thrown.errno === 'E2BIG')
          return listParts(connection, path, transaction);
        throw refused(thrown, path);
      }
    },
    async remove(path) {
      try {
        await ask(messageType.remove, path);
      } catch (thrown) {
        if (!isMissing(thrown)) throw refused(thrown, path);
      }
    },
  };
}

const split = (payload: Buffer): string[] =>
  payload
    .toString()
    .split('\0')
    .filter((name) => name !== '');

/** A directory that does not fit one reply; read again from its start if it changes meanwhile. */
async function listParts(
  connection: XenstoreConnection,
  path: string,
  transaction: number,
): Promise<string[]> {
  for (let tries = 0; tries < maxTransactionTries; tries++) {
    let generation: string | undefined;
    let names = '';
    for (;;) {
      const part = await connection.request(
        messageType.directoryPart,
        [path, '\0', String(names.length), '\0'],
        transaction,
      );
      const end = part.indexOf(0);
      const seen = part.subarray(0, end).toString();
      generation ??= seen;
      if (seen !== generation) break;
      const text = part.subarray(end + 1).toString('latin1');
      // The last part ends with an empty name.
      if (text === '\0' || text === '' || text.endsWith('\0\0'))
        return split(Buffer.from(names + text, 'latin1'));
      names += text;
    }
  }
  throw new DormouseError('LOCKED', `xenstore ${path} keeps changing`);
}

interface Watch {
  readonly changed: (path: string) => void;
  readonly ended: ((error: DormouseError) => void) | undefined;
}
type Watches = Map<string, Watch>;

export class XenXenstore implements Xenstore {
  readonly #connection: XenstoreConnection;
  readonly #nodes: Nodes;
  readonly #watches: Watches;
  #lastToken = 0;

  private constructor(connection: XenstoreConnection, watches: Watches) {
    this.#connection = connection;
    this.#nodes = nodes(connection, 0);
    this.#watches = watches;
  }

  /** `notice` is told of a watcher's callback that throws. */
  static async open(notice: (text: string) => void): Promise<XenXenstore> {
    const watches: Watches = new Map();
    const contained = (what: string, call: () => void): void => {
      try {
        call();
      } catch (thrown) {
        notice(`xenstore: ${what}: ${asDormouseError(thrown).message}`);
      }
    };
    const connection = await XenstoreConnection.open(xenstoreSocket(), {
      event: (path, token) => contained(`a watch of ${path}`, () => watches.get(token)?.changed(path)),
      ended: (error) => {
        const all = [...watches.values()];
        watches.clear();
        for (const { ended } of all) contained('the end of a watch', () => ended?.(error));
      },
    });
    return new XenXenstore(connection, watches);
  }

  read(path: string): Promise<string | null> {
    return this.#nodes.read(path);
  }
  write(path: string, value: string): Promise<void> {
    return this.#nodes.write(path, value);
  }
  list(path: string): Promise<string[]> {
    return this.#nodes.list(path);
  }
  remove(path: string): Promise<void> {
    return this.#nodes.remove(path);
  }

  async watch(
    path: string,
    changed: (path: string) => void,
    ended?: (error: DormouseError) => void,
  ): Promise<() => Promise<void>> {
    const token = `dormouse-${++this.#lastToken}`;
    this.#watches.set(token, { changed, ended });
    const forget = (): boolean => {
      const was = this.#watches.delete(token);
      this.#connection.listen(this.#watches.size > 0);
      return was;
    };
    this.#connection.listen(true);
    try {
      await this.#connection.request(messageType.watch, [path, '\0', token, '\0']);
    } catch (thrown) {
      forget();
      throw refused(thrown, path);
    }
    return async () => {
      if (forget()) await this.#connection.request(messageType.unwatch, [path, '\0', token, '\0']);
    };
  }

  async transaction<T>(body: (tx: Nodes) => Promise<T>): Promise<T> {
    for (let tries = 0; tries < maxTransactionTries; tries++) {
      const started = await this.#connection.request(messageType.transactionStart, ['\0']);
      const id = Number.parseInt(started.toString(), 10);
      let result: T;
      try {
        result = await body(nodes(this.#connection, id));
      } catch (thrown) {
        await this.#connection.request(messageType.transactionEnd, ['F\0'], id).catch(() => undefined);
        throw thrown;
      }
      try {
        await this.#connection.request(messageType.transactionEnd, ['T\0'], id);
        return result;
      } catch (thrown) {
        if (!(thrown instanceof XenstoreRefusal && thrown.errno === 'EAGAIN'))
          throw refused(thrown, 'transaction');
      }
    }
    throw new DormouseError(
      'LOCKED',
      `a xenstore transaction did not commit in ${maxTransactionTries} tries`,
    );
  }

  /** Tells xenstored that a suspended domain goes on, so that its next shutdown is announced again. */
  async resumeDomain(domid: number): Promise<void> {
    try {
      await this.#connection.request(messageType.resume, [String(domid), '\0']);
    } catch (thrown) {
      throw refused(thrown, `of domain ${domid}`);
    }
  }

  close(): void {
    this.#connection.close();
  }
}

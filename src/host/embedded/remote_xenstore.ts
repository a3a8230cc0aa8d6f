/** The host's xenstore as a tool sees it. */
import { DormouseError } from '../../errors.js';
import type { Xenstore } from '../contract.js';
import type { HostConnection } from './connection.js';

const maxTransactionTries = 100;

type Access = Pick<Xenstore, 'read' | 'write' | 'list' | 'remove'>;

export class RemoteXenstore implements Xenstore {
  readonly #connection: HostConnection;
  readonly #watches = new Map<number, (path: string) => void>();
  readonly #plain: Access;
  #lastWatch = 0;

  constructor(connection: HostConnection) {
    this.#connection = connection;
    this.#plain = this.#access(null);
    connection.onEvent((event) => {
      if (event.kind === 'watch') this.#watches.get(event.watch)?.(event.path);
    });
  }

  read(path: string): Promise<string | null> {
    return this.#plain.read(path);
  }

  write(path: string, value: string): Promise<void> {
    return this.#plain.write(path, value);
  }

  list(path: string): Promise<string[]> {
    return this.#plain.list(path);
  }

  remove(path: string): Promise<void> {
    return this.#plain.remove(path);
  }

  async watch(path: string, changed: (path: string) => void): Promise<() => Promise<void>> {
    const watch = ++this.#lastWatch;
    this.#watches.set(watch, changed);
    try {
      await this.#connection.call('xsWatch', { watch, path });
    } catch (thrown) {
      this.#watches.delete(watch);
      throw thrown;
    }
    return async () => {
      if (this.#watches.delete(watch)) await this.#connection.call('xsUnwatch', { watch });
    };
  }

  async transaction<T>(body: (tx: Access) => Promise<T>): Promise<T> {
    for (let tries = 0; tries < maxTransactionTries; tries++) {
      const transaction = await this.#connection.call('xsBegin', {});
      let result: T;
      try {
        result = await body(this.#access(transaction));
      } catch (thrown) {
        await this.#connection.call('xsEnd', { transaction, commit: false });
        throw thrown;
      }
      if (await this.#connection.call('xsEnd', { transaction, commit: true })) return result;
    }
    throw new DormouseError(
      'LOCKED',
      `a xenstore transaction did not commit in ${maxTransactionTries} tries`,
    );
  }

  #access(transaction: number | null): Access {
    const connection = this.#connection;
    return {
      read: (path) => connection.call('xsRead', { path, transaction }),
      list: (path) => connection.call('xsList', { path, transaction }),
      write: async (path, value) => {
        await connection.call('xsWrite', { path, value, transaction });
      },
      remove: async (path) => {
        await connection.call('xsRemove', { path, transaction });
      },
    };
  }
}

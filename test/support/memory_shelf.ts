/** A shelf in memory, of which each call can be delayed, fail, or be the last that its caller makes. */
import { Buffer } from 'node:buffer';
import type { Descent } from '../../src/store/lineage.js';
import { DormouseError } from '../../src/errors.js';
import { largestBytes, type NewFile, requireName, type Shelf } from '../../src/store/shelf.js';

/** What the shelf's caller has died of: nothing that it was about to do happens any more. */
export class Crash extends Error {}

export interface Thing {
  readonly bytes: Buffer;
  readonly descent?: Descent;
}

/** Called before (`false`) and after (`true`) each change or look; may wait, or throw. */
export type Around = (call: string, name: string, done: boolean) => Promise<void> | void;

/** What is kept, whoever looks at it. */
export class Things extends Map<string, Thing> {
  lastParts(folder: string): string[] {
    const begins = folder === '' ? '' : `${folder}/`;
    const parts = [...this.keys()].filter((name) => name.startsWith(begins));
    return [...new Set(parts.map((name) => name.slice(begins.length).split('/')[0] ?? ''))].sort();
  }
}

export class MemoryShelf implements Shelf {
  readonly description = 'memory';

  constructor(
    readonly things: Things,
    private readonly around: Around = () => undefined,
  ) {}

  async #call<T>(call: string, name: string, body: () => T): Promise<T> {
    if (call !== 'list' || name !== '') requireName(name);
    await this.around(call, name, false);
    const result = body();
    await this.around(call, name, true);
    return result;
  }

  putIfAbsent(name: string, bytes: Buffer): Promise<boolean> {
    return this.putImage(name, { bytes: Buffer.from(bytes) });
  }

  /** What its path leads to is in the test's hands. */
  create(name: string): Promise<NewFile> {
    return this.#named(name, () => ({
      path: name,
      publish: () => this.putIfAbsent(name, Buffer.alloc(0)),
      drop: () => Promise.resolve(),
    }));
  }

  putImage(name: string, thing: Thing): Promise<boolean> {
    return this.#call('put', name, () => {
      if (this.things.has(name)) return false;
      this.things.set(name, thing);
      return true;
    });
  }

  get(name: string): Promise<Buffer | null> {
    return this.#call('get', name, () => {
      const bytes = this.things.get(name)?.bytes;
      if (bytes && bytes.length >= largestBytes)
        throw new DormouseError('STORE_DAMAGED', `${name} is larger than anything that is kept there`);
      return bytes ? Buffer.from(bytes) : null;
    });
  }

  list(folder: string): Promise<readonly string[]> {
    return this.#call('list', folder, () => this.things.lastParts(folder));
  }

  async #named<T>(name: string, body: () => T): Promise<T> {
    await Promise.resolve();
    requireName(name);
    return body();
  }

  size(name: string): Promise<number | null> {
    return this.#named(name, () => this.things.get(name)?.bytes.length ?? null);
  }

  delete(name: string): Promise<boolean> {
    return this.#call('delete', name, () => this.things.delete(name));
  }

  imagePath(name: string): Promise<string> {
    return this.#named(name, () => name);
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(Infinity);
  }

  /** A put is there at once or never. */
  sweep(folder: string): Promise<void> {
    return this.#named(folder, () => undefined);
  }
}

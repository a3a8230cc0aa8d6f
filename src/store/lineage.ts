/** Which images an image needs, as its own file says; what the file does not say is not believed. */
import { asDormouseError, DormouseError } from '../errors.js';
import type { MapKind } from '../image/format.js';
import { ImageFile } from '../image/image_file.js';
import type { DomainNames } from './names.js';
import type { Shelf } from './shelf.js';

interface Identity {
  readonly imageId: string;
  readonly root: string;
}

/** An image of the store, by its file. */
export interface Descent extends Identity {
  /** Behind one of changes the parent's own map is read too; of all other ancestors only chunks. */
  readonly mapKind: MapKind;
  /** The parent first. */
  readonly needs: readonly (Identity & { readonly name: string })[];
}

/** Null if there is no such image. */
export type ReadDescent = (name: string) => Promise<Descent | null>;

async function descentOf(path: string): Promise<Descent | null> {
  const file = await ImageFile.open(path).catch((thrown: unknown) => {
    const error = asDormouseError(thrown);
    if (error.code === 'IMAGE_NOT_FOUND') return null;
    throw error;
  });
  if (!file) return null;
  try {
    const { header, footer } = file;
    const needs = await file.ancestors();
    return { imageId: header.imageId, root: footer.root, mapKind: footer.mapKind, needs };
  } finally {
    await file.close();
  }
}

const damaged = (message: string, cause?: unknown): DormouseError =>
  new DormouseError('STORE_DAMAGED', message, { cause });

/** Reads each image once: what has its name never changes. */
export class Lineage {
  readonly #known = new Map<string, Descent>();

  constructor(private readonly read: ReadDescent) {}

  static of(shelf: Shelf, names: DomainNames): Lineage {
    return new Lineage(async (name) => descentOf(await shelf.imagePath(names.of('images', name))));
  }

  /** STORE_DAMAGED if it cannot be read; null if there is none. */
  async #descent(name: string): Promise<Descent | null> {
    const known = this.#known.get(name);
    if (known) return known;
    const read = await this.read(name).catch((thrown: unknown) => {
      throw damaged(`image ${name} cannot be read: ${asDormouseError(thrown).message}`, thrown);
    });
    if (read) this.#known.set(name, read);
    return read;
  }

  /** To read all of them anew, but those that are there for certain. */
  forget(but: ReadonlySet<string> = new Set()): void {
    for (const name of this.#known.keys()) if (!but.has(name)) this.#known.delete(name);
  }

  /**
   * The images and all that must be there for them to be read. STORE_DAMAGED if one is missing, another image, or cannot be
   * read; with `mayMiss` what is missing is passed over.
   */
  async closure(images: Iterable<string>, mayMiss = false): Promise<Set<string>> {
    const [all, mapped, open] = [new Set<string>(), new Set<string>(), [...images]];
    for (let name = open.pop(); name !== undefined; name = open.pop()) {
      all.add(name);
      if (mapped.has(name)) continue;
      mapped.add(name);
      const descent = await this.#descent(name);
      if (!descent && !mayMiss) throw damaged(`image ${name} is missing, and points need it`);
      for (const [i, need] of (descent?.needs ?? []).entries()) {
        if (!mayMiss || (await this.#descent(need.name))) await this.require(need, name);
        if (descent?.mapKind === 'changes' && i === 0) open.push(need.name);
        else all.add(need.name);
      }
    }
    return all;
  }

  /** STORE_DAMAGED if that image is not there, or another one under its name. */
  async require({ name, imageId, root }: Descent['needs'][number], by: string): Promise<void> {
    const found = await this.#descent(name);
    if (!found) throw damaged(`image ${name} is missing, and ${by} needs it`);
    if (found.imageId !== imageId || found.root !== root)
      throw damaged(`${name} is another image than the one that ${by} needs`);
  }
}

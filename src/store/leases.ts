/**
 * What a process says it is at, for as long as it lives: images that must stay, points that are about to go. Each says so first and
 * looks then for what would contradict it. Nothing of it has to outlive the machine: whoever said it does not.
 */
import type { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import type { DomainNames } from './names.js';
import { decode, encode, leaseRecord, leavingRecord } from './record.js';
import type { Shelf } from './shelf.js';

type Kind = 'leases' | 'leaving';

/** One note at a time. */
class Note {
  #name: string | null = null;

  constructor(
    private readonly shelf: Shelf,
    private readonly names: DomainNames,
    private readonly kind: Kind,
  ) {}

  protected async put(bytes: Buffer): Promise<void> {
    const name = this.names.note(this.kind, randomBytes(6).toString('hex'));
    await this.shelf.putIfAbsent(name, bytes, 'fleeting').catch(async (thrown: unknown) => {
      // It may be there all the same, and nobody would take it back while this process lives.
      await this.shelf.delete(name, 'fleeting').catch(() => undefined);
      throw thrown;
    });
    const before = this.#name;
    this.#name = name;
    if (before !== null) await this.shelf.delete(before, 'fleeting');
  }

  /** Idempotent. */
  async drop(): Promise<void> {
    const name = this.#name;
    if (name !== null) await this.shelf.delete(name, 'fleeting');
    this.#name = null;
  }
}

export class ImageLease extends Note {
  constructor(shelf: Shelf, names: DomainNames) {
    super(shelf, names, 'leases');
  }

  /** From when it returns these are leased, and no longer those that were only before. */
  async hold(images: readonly string[]): Promise<void> {
    await this.put(encode({ version: 1, images: [...new Set(images)] }));
  }
}

export class Leaving extends Note {
  constructor(shelf: Shelf, names: DomainNames) {
    super(shelf, names, 'leaving');
  }

  async announce(points: readonly string[]): Promise<void> {
    await this.put(encode({ version: 1, points }));
  }
}

/** The notes of the living; those of the dead are removed. STORE_DAMAGED for one that cannot be read. */
async function notes<T>(
  shelf: Shelf,
  names: DomainNames,
  kind: Kind,
  read: (bytes: Buffer, name: string) => readonly T[],
): Promise<Set<T>> {
  const all = new Set<T>();
  for (const last of await shelf.list(names.folder(kind))) {
    const name = names.of(kind, last);
    if (names.isOfDead(last)) {
      await shelf.delete(name);
      continue;
    }
    const bytes = await shelf.get(name);
    for (const one of bytes ? read(bytes, name) : []) all.add(one);
  }
  return all;
}

export const leasedImages = (shelf: Shelf, names: DomainNames): Promise<Set<string>> =>
  notes(shelf, names, 'leases', (bytes, name) => decode(leaseRecord, bytes, name).images);

export const leavingPoints = (shelf: Shelf, names: DomainNames): Promise<Set<string>> =>
  notes(shelf, names, 'leaving', (bytes, name) => decode(leavingRecord, bytes, name).points);

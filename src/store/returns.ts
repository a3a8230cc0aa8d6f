/** When a domain was taken back, and to which of its points. */
import type { Return } from './line.js';
import type { DomainNames } from './names.js';
import { isPointId } from './point_id.js';
import { decode, encode, positionRecord } from './record.js';
import type { Shelf } from './shelf.js';

export class Returns {
  constructor(
    private readonly shelf: Shelf,
    private readonly names: DomainNames,
  ) {}

  /** Ascending. */
  async ids(): Promise<string[]> {
    return (await this.shelf.list(this.names.folder('positions'))).filter(isPointId);
  }

  /** Null for one that went meanwhile. STORE_DAMAGED. */
  async get(id: string): Promise<Return | null> {
    const name = this.names.of('positions', id);
    const bytes = await this.shelf.get(name);
    return bytes && { id, point: decode(positionRecord, bytes, name).point };
  }

  /** Ascending. STORE_DAMAGED. */
  async list(): Promise<Return[]> {
    const found: Return[] = [];
    for (const id of await this.ids()) {
      const one = await this.get(id);
      if (one) found.push(one);
    }
    return found;
  }

  async put({ id, point }: Return): Promise<void> {
    await this.shelf.putIfAbsent(this.names.of('positions', id), encode({ version: 1, point }));
  }
}

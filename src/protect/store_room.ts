/** Keeps the points of a domain within their room: forgets by the rules, and the oldest chains where that is not enough. */
import { DormouseError } from '../errors.js';
import type { DomainPoints } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';
import { hasRules, type Retention } from '../store/retention.js';
import type { Shelf } from '../store/shelf.js';
import { beginsChain, oldestChain } from './room.js';

export interface RoomLimits {
  readonly retention: Retention;
  readonly maxBytes: number;
  readonly minFreeBytes: number;
}

const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

/** Points between two prunings by the rules; looking at all records after each point would cost more than the point. */
const pruneEvery = 10;

export class StoreRoom {
  #usedBytes: number | null = null;
  #sincePruned = 0;
  #chain = { id: '', wholeBytes: 0, chainBytes: 0 };

  constructor(
    private readonly points: DomainPoints,
    private readonly shelf: Shelf,
    private readonly limits: RoomLimits,
  ) {}

  /** Whether the next point is to begin a chain of its own. */
  beginsChain(chainId: string | null): boolean {
    const { maxBytes, retention } = this.limits;
    if (chainId === null || chainId !== this.#chain.id) return false;
    return beginsChain(this.#chain, { maxBytes, ages: hasRules(retention) || maxBytes !== Infinity });
  }

  /** Counts a point that was taken, and prunes now and then. */
  async took({ image }: PointRecord): Promise<void> {
    const { chainId, storedBytes, sequence } = image;
    if (chainId !== this.#chain.id) this.#chain = { id: chainId, wholeBytes: storedBytes, chainBytes: 0 };
    if (sequence === 0) this.#chain.wholeBytes = storedBytes;
    this.#chain.chainBytes += storedBytes;
    if (this.#usedBytes !== null) this.#usedBytes += storedBytes;
    if (++this.#sincePruned < pruneEvery || !hasRules(this.limits.retention)) return;
    await this.#prune();
  }

  async #prune(): Promise<void> {
    this.#sincePruned = 0;
    const { freedBytes } = await this.points.prune(this.limits.retention);
    if (this.#usedBytes !== null) this.#usedBytes -= freedBytes;
  }

  async #used(): Promise<number> {
    this.#usedBytes ??= await this.points.usedBytes();
    return this.#usedBytes;
  }

  /** The rest of the disk is not ours: when it is full nothing is forgotten but what the rules say. */
  async #requireFree(): Promise<void> {
    const { minFreeBytes } = this.limits;
    if ((await this.shelf.freeBytes()) >= minFreeBytes) return;
    await this.#prune();
    const free = await this.shelf.freeBytes();
    if (free >= minFreeBytes) return;
    throw new DormouseError(
      'NO_SPACE',
      `only ${mib(free)} are free in ${this.shelf.description}, and ${mib(minFreeBytes)} are to stay so`,
    );
  }

  /** Makes room for a point that goes on with that chain. NO_SPACE if nothing is left that may be forgotten. */
  async make(headChain: string | null, notice: (text: string) => void): Promise<void> {
    await this.#requireFree();
    const { maxBytes } = this.limits;
    if (maxBytes === Infinity || (await this.#used()) < maxBytes) return;
    await this.#prune();
    for (let used = await this.#used(); used >= maxBytes; used = await this.#used()) {
      const points = await this.points.list();
      const going = oldestChain(
        points.map(({ id, image, pinned }) => ({ id, pinned, chainId: image.chainId })),
        headChain ?? points.at(-1)?.image.chainId ?? null,
      );
      const why = `its points take ${mib(used)} of ${mib(maxBytes)}`;
      if (going.length === 0) throw new DormouseError('NO_SPACE', `${why}, and no older point may go`);
      notice(`${why}: the oldest ${going.length} are forgotten`);
      await this.points.forget(going);
      await this.points.collect();
      this.#usedBytes = null;
    }
  }
}

/** Keeps the points of a domain within their room: forgets by the rules, and the oldest chains where that is not enough. */
import { asDormouseError, DormouseError } from '../errors.js';
import type { DomainPoints, Point } from '../store/domain_points.js';
import type { PointRecord } from '../store/record.js';
import { hasRules, type Retention } from '../store/retention.js';
import type { Shelf } from '../store/shelf.js';
import { beginsChain, type ChainSize, oldestChain } from './room.js';

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
  #chain: ({ readonly id: string } & ChainSize) | null = null;
  #toldSmall = false;
  /** There is no room but what the chain itself takes. */
  #isToEnd = false;

  /** `notice` is told what an operator should know. */
  constructor(
    private readonly points: DomainPoints,
    private readonly shelf: Shelf,
    private readonly limits: RoomLimits,
    private readonly notice: (text: string) => void,
  ) {}

  /** Whether the next point is to begin a chain of its own. */
  beginsChain(chainId: string | null): boolean {
    const { maxBytes, retention } = this.limits;
    if (this.#chain === null || (chainId !== null && chainId !== this.#chain.id)) return false;
    if (this.#isToEnd) return true;
    return beginsChain(this.#chain, { maxBytes, ages: hasRules(retention) || maxBytes !== Infinity });
  }

  /** Of the points that were there before this process: the chain that the next one would go on with. */
  async begin(): Promise<void> {
    try {
      const current = await this.points.current();
      if (current)
        this.#chain = { id: current.image.chainId, ...(await this.points.chainBytes(current.image.chainId)) };
    } catch (thrown) {
      this.notice(asDormouseError(thrown).message);
    }
  }

  /** Counts a point that was taken, and prunes now and then. */
  async took({ image }: PointRecord): Promise<void> {
    const { id, wholeBytes, chainBytes } = this.#chain ?? { id: '', wholeBytes: 0, chainBytes: 0 };
    const { chainId, storedBytes } = image;
    this.#chain =
      id === chainId
        ? { id, wholeBytes: Math.max(wholeBytes, storedBytes), chainBytes: chainBytes + storedBytes }
        : { id: chainId, wholeBytes: storedBytes, chainBytes: storedBytes };
    if (id !== chainId) this.#isToEnd = false;
    if (this.#usedBytes !== null) this.#usedBytes += storedBytes;
    this.#tellSmall();
    if (++this.#sincePruned >= pruneEvery && hasRules(this.limits.retention)) await this.#prune();
  }

  #tellSmall(): void {
    const { maxBytes } = this.limits;
    const wholeBytes = this.#chain?.wholeBytes ?? 0;
    if (this.#toldSmall || 2 * wholeBytes <= maxBytes) return;
    this.#toldSmall = true;
    this.notice(
      `${mib(maxBytes)} are less than two whole images of ${mib(wholeBytes)}: more is taken while one chain follows another`,
    );
  }

  /** What cannot be pruned is told, and keeps no point from being taken. */
  async #prune(): Promise<void> {
    this.#sincePruned = 0;
    try {
      const { freedBytes, stuck } = await this.points.prune(this.limits.retention);
      for (const words of stuck) this.notice(words);
      if (this.#usedBytes !== null) this.#usedBytes -= freedBytes;
    } catch (thrown) {
      this.notice(`the points are not pruned: ${asDormouseError(thrown).message}`);
    }
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

  /** A chain that takes all the room goes when another is there; not if what is pinned beside it takes it, or a whole image is too large. */
  #endsChain(points: readonly Point[]): boolean {
    const chain = this.#chain;
    if (chain === null || chain.wholeBytes > this.limits.maxBytes || chain.chainBytes <= chain.wholeBytes)
      return false;
    if (points.some(({ pinned, image }) => pinned && image.chainId !== chain.id)) return false;
    this.#isToEnd = true;
    return true;
  }

  /** Makes room for a point that goes on with that chain. NO_SPACE if nothing is left that may be forgotten. */
  async make(headChain: string | null): Promise<void> {
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
      if (going.length === 0 && this.#endsChain(points)) return;
      if (going.length === 0) throw new DormouseError('NO_SPACE', `${why}, and no older point may go`);
      this.notice(`${why}: the oldest ${going.length} are forgotten`);
      await this.points.forget(going);
      await this.points.collect();
      this.#usedBytes = null;
    }
  }
}

/** The disks of a point that is being taken: each is there, whole and on disk, before the point is. */
import { performance } from 'node:perf_hooks';
import type { Copy } from '../disks/copy.js';
import { beginCopy, forget, type Keepers } from '../disks/keep.js';
import { deviceName, keptDisk, type KeptDisks, outsideName } from '../disks/kept.js';
import type { DiskWay, KeepingKind } from '../disks/way.js';
import { DormouseError } from '../errors.js';
import type { DomainDisk } from '../host/contract.js';
import { type DomainNames, diskNameOf } from './names.js';
import { encode } from './record.js';
import type { NewFile, Shelf } from './shelf.js';

/** One of them, with where the store has it, or says that it is elsewhere. */
interface Taken {
  readonly copy: Copy;
  /** Of the `disks` folder. */
  readonly name: string;
  /** Its content, if that is in the store. */
  readonly file: NewFile | null;
  /** There is something of that name, and it is ours. */
  named: boolean;
}

export interface DiskPlace {
  readonly shelf: Shelf;
  readonly names: DomainNames;
  readonly keepers: Keepers;
}

export class TakingDisks {
  #tookMs = 0;

  private constructor(
    private readonly place: DiskPlace,
    private readonly id: string,
    private readonly way: DiskWay,
    private readonly taken: Taken[],
  ) {}

  /**
   * For the point of that id, whose image is leased. Nothing has been taken when it returns, but whatever can stand against it is known:
   * HOST_LACKS, USAGE, COMMAND_FAILED, and those of a store.
   */
  static async begin(
    place: DiskPlace,
    id: string,
    way: DiskWay,
    disks: readonly DomainDisk[],
  ): Promise<TakingDisks> {
    const taking = new TakingDisks(place, id, way, []);
    if (way.kind === 'none') return taking;
    try {
      for (const disk of disks.filter(({ writable }) => writable))
        taking.taken.push(await taking.#begin(way.kind, disk));
      return taking;
    } catch (thrown) {
      await taking.abandon().catch(() => undefined);
      throw thrown;
    }
  }

  async #begin(kind: KeepingKind, disk: DomainDisk): Promise<Taken> {
    const { shelf, names, keepers } = this.place;
    const { id } = this;
    if (!deviceName.safeParse(disk.name).success)
      throw new DormouseError('HOST_LACKS', `no point can hold a disk that is called '${disk.name}'`);
    const name = diskNameOf(id, disk.name, kind === 'reflink' ? 'content' : 'note');
    const file = kind === 'reflink' ? await shelf.create(names.of('disks', name)) : null;
    const where = file ? name : outsideName(names.uuid, id, disk.name);
    try {
      const copy = await beginCopy(keepers, kind, { domain: names.uuid, disk, where }, file?.path ?? '');
      if (keptDisk.safeParse(copy.disk).success) return { copy, name, file, named: false };
      await copy.close();
      throw new DormouseError(
        'HOST_LACKS',
        `disk ${disk.name}: no point can say that '${copy.disk.where}' is it`,
      );
    } catch (thrown) {
      await file?.drop();
      throw thrown;
    }
  }

  get keeps(): boolean {
    return this.taken.length > 0;
  }

  /** Right before the guest is to stand: a copy that is elsewhere is known of before it is made. */
  async ready(): Promise<void> {
    const { shelf, names } = this.place;
    const { kind } = this.way;
    for (const taken of this.taken) {
      const { copy, name, file } = taken;
      if (!file && !taken.named)
        await this.#named(taken, () =>
          shelf.putIfAbsent(names.of('disks', name), encode({ version: 1, kind, disk: copy.disk })),
        );
      await copy.ready();
    }
  }

  async #named(taken: Taken, give: () => Promise<boolean>): Promise<void> {
    taken.named = await give();
    if (!taken.named) throw new DormouseError('OUTPUT_EXISTS', `there is a disk ${taken.name} already`);
  }

  /** While the guest stands. */
  readonly take = (): void => {
    const startedMs = performance.now();
    for (const { copy } of this.taken) copy.take();
    this.#tookMs = performance.now() - startedMs;
  };

  /** All are there when it returns, and what the point's record says of them. */
  async finish(): Promise<KeptDisks> {
    const { way } = this;
    if (way.kind === 'none') return { kind: 'none' };
    for (const taken of this.taken) {
      const { copy, file } = taken;
      await copy.settle();
      if (file) await this.#named(taken, () => file.publish());
      await copy.close();
    }
    const program = way.kind === 'command' ? way.program : null;
    const disks = this.taken.map(({ copy }) => copy.disk);
    return { kind: way.kind, program, tookMs: this.#tookMs, disks };
  }

  /** There is to be no such point. What cannot be undone now the next collection undoes. */
  async abandon(): Promise<void> {
    const { shelf, names, keepers } = this.place;
    const { kind } = this.way;
    if (kind === 'none') return;
    for (const { copy, file } of this.taken) {
      await copy.close().catch(() => undefined);
      await file?.drop();
    }
    for (const { copy, file, name, named } of this.taken) {
      if (!named) continue;
      if (!file) forget(keepers, { kind, domain: names.uuid, point: this.id, disk: copy.disk });
      await shelf.delete(names.of('disks', name));
    }
  }
}

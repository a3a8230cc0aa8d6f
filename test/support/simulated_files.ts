/**
 * A file system in memory that can die at any step: what was not synced may then be there, or not, or in part. A file's bytes are
 * durable when it is synced, a name when its folder is; nothing is assumed of the order in which the rest gets to the disk.
 */
import { Buffer } from 'node:buffer';
import { basename, dirname } from 'node:path';
import type { FileCalls } from '../../src/store/files.js';
import type { Dice } from './dice.js';

export class Crash extends Error {}

interface Folder {
  readonly names: Map<string, Inode>;
  durable: Map<string, Inode>;
}
interface File {
  bytes: Buffer;
  durable: Buffer | null;
}
type Inode = Folder | File;

const isFolder = (inode: Inode | undefined): inode is Folder => inode !== undefined && 'names' in inode;
const emptyFolder = (): Folder => ({ names: new Map(), durable: new Map() });

function errno(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** What happens at a step: nothing, the end of the process, or an error. */
export type AtStep = (step: number) => 'go on' | 'crash' | 'ENOSPC' | 'EIO';

export class SimulatedFiles implements FileCalls {
  readonly #root = emptyFolder();
  #dead = false;
  steps = 0;
  atStep: AtStep = () => 'go on';

  #step(writes = true): void {
    if (this.#dead) throw new Crash();
    const what = this.atStep(++this.steps);
    if (what === 'crash') {
      this.#dead = true;
      throw new Crash();
    }
    if (what === 'EIO' || (what === 'ENOSPC' && writes)) throw errno(what);
  }

  /** One that somebody else takes for this process: a program that it runs. */
  step(): void {
    this.#step();
  }

  /** The process is gone; with the power so is what was not synced, or not. */
  revive(powerLoss: Dice | null): void {
    this.#dead = false;
    this.atStep = () => 'go on';
    if (powerLoss) this.#lose(this.#root, powerLoss);
  }

  #lose(folder: Folder, dice: Dice): void {
    for (const name of new Set([...folder.names.keys(), ...folder.durable.keys()])) {
      const [now, before] = [folder.names.get(name), folder.durable.get(name)];
      const kept = now === before || dice.below(2) === 0 ? now : before;
      if (kept) folder.names.set(name, kept);
      else folder.names.delete(name);
    }
    folder.durable = new Map(folder.names);
    for (const inode of folder.names.values())
      if (isFolder(inode)) this.#lose(inode, dice);
      else if (inode.durable) inode.bytes = inode.durable;
      else inode.bytes = inode.bytes.subarray(0, dice.below(inode.bytes.length + 1));
  }

  #at(path: string): Inode {
    let at: Inode = this.#root;
    for (const part of path.split('/').filter((name) => name !== '')) {
      const next: Inode | undefined = isFolder(at) ? at.names.get(part) : undefined;
      if (!next) throw errno('ENOENT');
      at = next;
    }
    return at;
  }

  #folder(path: string): Folder {
    const inode = this.#at(path);
    if (!isFolder(inode)) throw errno('ENOTDIR');
    return inode;
  }

  async #later(): Promise<void> {
    await Promise.resolve();
  }

  #give(path: string, inode: Inode): void {
    const { names } = this.#folder(dirname(path));
    if (names.has(basename(path))) throw errno('EEXIST');
    names.set(basename(path), inode);
  }

  async makeFolder(path: string): Promise<void> {
    await this.#later();
    this.#step();
    this.#give(path, emptyFolder());
  }

  async syncFolder(path: string): Promise<void> {
    await this.#later();
    this.#step();
    const folder = this.#folder(path);
    folder.durable = new Map(folder.names);
  }

  async syncFile(path: string): Promise<void> {
    await this.#later();
    this.#step();
    const inode = this.#at(path);
    if (isFolder(inode)) throw errno('EISDIR');
    inode.durable = inode.bytes;
  }

  /** As somebody else writes to a file. */
  write(path: string, bytes: Buffer): void {
    const inode = this.#at(path);
    if (isFolder(inode)) throw errno('EISDIR');
    this.#step();
    inode.bytes = Buffer.from(bytes);
  }

  #fill(file: File, given: Buffer): void {
    const bytes = Buffer.from(given);
    this.#step();
    file.bytes = bytes.subarray(0, bytes.length / 2);
    this.#step();
    file.bytes = bytes;
    this.#step();
    file.durable = bytes;
  }

  async writeNew(path: string, bytes: Buffer): Promise<void> {
    await this.#later();
    this.#step();
    const file: File = { bytes: Buffer.alloc(0), durable: null };
    this.#give(path, file);
    this.#fill(file, bytes);
  }

  /** As images are written: without a name until all of it is on disk. */
  async writeUnnamed(path: string, bytes: Buffer): Promise<void> {
    await this.#later();
    this.#step();
    const file: File = { bytes: Buffer.alloc(0), durable: null };
    this.#fill(file, bytes);
    this.#step();
    this.#give(path, file);
    await this.syncFolder(dirname(path));
  }

  async link(from: string, to: string): Promise<void> {
    await this.#later();
    this.#step();
    this.#give(to, this.#at(from));
  }

  async unlink(path: string): Promise<void> {
    await this.#later();
    this.#step(false);
    if (!this.#folder(dirname(path)).names.delete(basename(path))) throw errno('ENOENT');
  }

  async read(path: string, most: number): Promise<Buffer> {
    await this.#later();
    this.#step(false);
    const inode = this.#at(path);
    if (isFolder(inode)) throw errno('EISDIR');
    return Buffer.from(inode.bytes.subarray(0, most));
  }

  async list(path: string): Promise<string[]> {
    await this.#later();
    this.#step(false);
    return [...this.#folder(path).names.keys()];
  }

  usedBytes(path: string): Promise<number> {
    const inode = this.#at(path);
    return Promise.resolve(isFolder(inode) ? 0 : inode.bytes.length);
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(Infinity);
  }

  /** Every path, hidden ones too, without a step. */
  paths(folder = this.#root, above = ''): string[] {
    return [...folder.names].flatMap(([name, inode]) =>
      isFolder(inode) ? this.paths(inode, `${above}/${name}`) : [`${above}/${name}`],
    );
  }
}

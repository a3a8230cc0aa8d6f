/**
 * The embedded host's xenstore: a tree of immutable nodes, so that a transaction is a root to start from, a list of
 * what it did and the generations of what it looked at. It commits if none of those changed, else it must be run again.
 */
import { DormouseError } from '../../errors.js';

/** Xen's own limits: absolute path, value. */
export const maxPathBytes = 3072;
export const maxValueBytes = 4096;
const maxNodes = 65_536;
const maxDepth = 32;

interface Node {
  readonly value: string;
  readonly children: ReadonlyMap<string, Node>;
  /** Changes with the value, and when a child comes or goes. */
  readonly generation: number;
}

type Change = { readonly path: string; readonly value: string } | { readonly path: string };

interface Transaction {
  readonly start: Node;
  root: Node;
  readonly seen: Map<string, number>;
  readonly changes: Change[];
}

interface Watch {
  readonly path: string;
  readonly fire: (path: string) => void;
}

export function checkPath(path: string): void {
  const special = path === '@releaseDomain' || path === '@introduceDomain';
  const wellFormed = path === '/' || /^(\/[-A-Za-z0-9_@:]+)+$/.test(path);
  if (path.length > maxPathBytes || !(special || wellFormed) || path.split('/').length > maxDepth)
    throw new DormouseError('USAGE', `not a xenstore path: ${JSON.stringify(path.slice(0, 80))}`);
}

function checkValue(path: string, value: string): void {
  if (Buffer.byteLength(value) > maxValueBytes)
    throw new DormouseError('USAGE', `the value of ${path} is longer than ${maxValueBytes} bytes`);
}

const partsOf = (path: string): string[] => path.split('/').filter((part) => part !== '');

function lookUp(root: Node, path: string): Node | undefined {
  let node: Node | undefined = root;
  for (const part of partsOf(path)) node = node?.children.get(part);
  return node;
}

function countNodes(node: Node): number {
  let count = 1;
  for (const child of node.children.values()) count += countNodes(child);
  return count;
}

export class XenstoreTree {
  #generation = 0;
  #nodes = 1;
  #root: Node = { value: '', children: new Map(), generation: 0 };
  #transactions = new Map<number, Transaction>();
  #lastTransaction = 0;
  readonly #watches = new Set<Watch>();

  /** The value, or null where there is no such node. */
  read(path: string, transaction?: number): string | null {
    checkPath(path);
    return this.#look(path, transaction)?.value ?? null;
  }

  /** Names of the children, empty where there is no such node. */
  list(path: string, transaction?: number): string[] {
    checkPath(path);
    return [...(this.#look(path, transaction)?.children.keys() ?? [])];
  }

  /** Creates the node and its parents where they are missing. */
  write(path: string, value: string, transaction?: number): void {
    checkPath(path);
    checkValue(path, value);
    this.#change({ path, value }, transaction);
  }

  /** Removes the node and all below it; nothing happens where there is none. */
  remove(path: string, transaction?: number): void {
    checkPath(path);
    if (path === '/') throw new DormouseError('USAGE', 'the root of xenstore cannot be removed');
    this.#change({ path }, transaction);
  }

  begin(): number {
    this.#transactions.set(++this.#lastTransaction, {
      start: this.#root,
      root: this.#root,
      seen: new Map(),
      changes: [],
    });
    return this.#lastTransaction;
  }

  /** Ends a transaction. False if it was not committed because something it used had changed. */
  end(transaction: number, commit: boolean): boolean {
    const ended = this.#transaction(transaction);
    this.#transactions.delete(transaction);
    if (!commit) return true;
    for (const [path, generation] of ended.seen)
      if (this.#generationAt(this.#root, path) !== generation) return false;
    for (const change of ended.changes) this.#change(change);
    return true;
  }

  /** Calls back at once, then at every change of the node or below it. Returns what ends the watch. */
  watch(path: string, fire: (path: string) => void): () => void {
    checkPath(path);
    const watch = { path, fire };
    this.#watches.add(watch);
    fire(path);
    return () => {
      this.#watches.delete(watch);
    };
  }

  /** Fires the watches on `@introduceDomain` or `@releaseDomain`. */
  announce(special: '@introduceDomain' | '@releaseDomain'): void {
    for (const watch of [...this.#watches]) if (watch.path === special) watch.fire(special);
  }

  counts(): { nodes: number; transactions: number; watches: number } {
    return { nodes: this.#nodes, transactions: this.#transactions.size, watches: this.#watches.size };
  }

  #transaction(id: number): Transaction {
    const found = this.#transactions.get(id);
    if (!found) throw new DormouseError('USAGE', `no xenstore transaction ${id}`);
    return found;
  }

  #generationAt(root: Node, path: string): number {
    return lookUp(root, path)?.generation ?? -1;
  }

  /** Remembers what the tree the transaction started from has there. */
  #see(transaction: Transaction, path: string): void {
    transaction.seen.set(path, this.#generationAt(transaction.start, path));
  }

  #look(path: string, transaction?: number): Node | undefined {
    if (transaction === undefined) return lookUp(this.#root, path);
    const own = this.#transaction(transaction);
    this.#see(own, path);
    return lookUp(own.root, path);
  }

  #change(change: Change, transaction?: number): void {
    if (transaction !== undefined) {
      const own = this.#transaction(transaction);
      this.#see(own, change.path);
      if (own.changes.length >= maxNodes)
        throw new DormouseError('NO_MEMORY', 'the xenstore transaction is too large');
      own.root = this.#apply(own.root, change);
      own.changes.push(change);
      return;
    }
    const before = lookUp(this.#root, change.path);
    if (!('value' in change) && !before) return;
    const root = this.#apply(this.#root, change);
    const nodes =
      'value' in change
        ? this.#nodes + this.#missing(change.path)
        : this.#nodes - (before ? countNodes(before) : 0);
    if (nodes > maxNodes) throw new DormouseError('NO_MEMORY', `xenstore is full (${maxNodes} nodes)`);
    this.#root = root;
    this.#nodes = nodes;
    this.#fire(change.path, !('value' in change));
  }

  /** How many nodes of the path are not there yet. */
  #missing(path: string): number {
    const parts = partsOf(path);
    let node: Node | undefined = this.#root;
    let depth = 0;
    while (depth < parts.length && (node = node.children.get(parts[depth] ?? ''))) depth += 1;
    return parts.length - depth;
  }

  #apply(root: Node, change: Change): Node {
    return this.#rebuild(root, partsOf(change.path), 'value' in change ? change.value : null);
  }

  /** The tree with the node at `parts` set to `value`, or without it for null. */
  #rebuild(node: Node, parts: readonly string[], value: string | null): Node {
    const [name, ...rest] = parts;
    if (name === undefined) return { ...node, value: value ?? '', generation: ++this.#generation };
    const child = node.children.get(name);
    if (!child && value === null) return node;
    const children = new Map(node.children);
    if (rest.length === 0 && value === null) children.delete(name);
    else children.set(name, this.#rebuild(child ?? this.#emptyNode(), rest, value));
    const sameNames = child !== undefined && children.has(name);
    return { ...node, children, generation: sameNames ? node.generation : ++this.#generation };
  }

  #emptyNode(): Node {
    return { value: '', children: new Map(), generation: ++this.#generation };
  }

  #fire(path: string, removed: boolean): void {
    for (const watch of [...this.#watches]) {
      const below = watch.path === '/' || path === watch.path || path.startsWith(`${watch.path}/`);
      if (below) watch.fire(path);
      else if (removed && watch.path.startsWith(`${path}/`)) watch.fire(watch.path);
    }
  }
}

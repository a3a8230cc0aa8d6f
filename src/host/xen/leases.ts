/**
 * Who works on which domain. A lease is a lock file that names its owner, a journal of what is to be undone, and a small
 * watcher process that undoes it if the owner dies; if that is dead as well, the next process to use this host finds the
 * files and has it done. native/host/xen/watcher describes the files.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DormouseError } from '../../errors.js';
import { makeFolders } from '../../folders.js';
import type { Ending, Lease, OperationKind } from '../contract.js';
import { RewindMarks } from './rewind_marks.js';

/** What a journal may hold, in the watcher's words. */
export type Undoable =
  | 'logdirty'
  | `suspend ${string}`
  | 'suspended'
  | 'pause'
  | 'pause over'
  | 'destroy'
  | 'build'
  | `was ${number}`
  | `group ${number} ${string}`
  | `monitor ${number} ${string}`
  | `saved ${Ending['then']} ${string}`;

/** Of a domain that its image ends or leaves paused; a path is one word of a journal's line, which it must not end. */
export const savedLine = ({ then, imageId, path }: Ending): Undoable =>
  `saved ${then} ${imageId} ${path.replace(/[%\n]/g, (char) => (char === '%' ? '%25' : '%0A'))}`;

interface Watchers {
  readonly first: ChildProcess;
  readonly start: () => ChildProcess;
}

interface LeaseFiles {
  readonly lock: string;
  readonly journal: string;
  /** Of a build: what it hands to others. */
  readonly dir: string;
}

const exitAlive = 3;
const exitPending = 4;
const maxTries = 10;
/** Longer than a watcher takes for anything but a host that does not answer. */
const undoTimeoutMs = 30_000;

interface Outcome {
  readonly status: number | null;
  readonly output: string;
  readonly late?: boolean;
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
  }
}

/** Field 22 of /proc/PID/stat: with the pid it names a process for good. */
export function startTime(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const start = fields[19];
  if (start === undefined) throw new DormouseError('INTERNAL', `/proc/${pid}/stat cannot be read`);
  return start;
}

function ended(child: ChildProcess): Promise<Outcome> {
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-4096);
    });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status) => resolve({ status, output: output.trim() }));
  });
}

class Journalled {
  readonly #what: string;
  readonly #files: LeaseFiles;
  #noted: ReadonlySet<Undoable> = new Set();
  readonly #startWatcher: () => ChildProcess;
  readonly #onRelease: () => void;
  #watcher: ChildProcess;
  #watcherEnd: Promise<Outcome>;
  #released: Promise<void> | undefined;
  /** Never rejects. */
  #doing: Promise<unknown> = Promise.resolve();

  /** `what` is named in errors: "domain 5". */
  constructor(what: string, files: LeaseFiles, watchers: Watchers, onRelease: () => void) {
    this.#what = what;
    this.#files = files;
    this.#startWatcher = watchers.start;
    this.#onRelease = onRelease;
    this.#watcher = watchers.first;
    this.#watcherEnd = this.#watch();
  }

  get isReleased(): boolean {
    return this.#released !== undefined;
  }

  has(what: Undoable): boolean {
    return this.#noted.has(what);
  }

  /** Whether anything of that first word is open. */
  hasKind(word: string): boolean {
    return [...this.#noted].some((line) => line.split(' ')[0] === word);
  }

  /**
   * To be called before the thing is done: from then on it is undone if this process dies. If this throws it is not noted,
   * and not to be done.
   */
  note(...what: Undoable[]): void {
    if (this.isReleased) throw new DormouseError('CANCELLED', `the lease on ${this.#what} has ended`);
    this.#write(new Set([...this.#noted, ...what]));
  }

  /**
   * Does what cannot be undone before it is done: the lease's end waits for it. CANCELLED if the lease has ended already, and then it is
   * not done.
   */
  whole<T>(work: () => Promise<T>): Promise<T> {
    if (this.isReleased) throw new DormouseError('CANCELLED', `the lease on ${this.#what} has ended`);
    const doing = work();
    this.#doing = Promise.allSettled([this.#doing, doing]);
    return doing;
  }

  /** It is undone. Once the lease has ended its files may be another's, and whoever ended it undoes the rest. */
  strike(...what: Undoable[]): void {
    if (this.isReleased) return;
    this.#write(new Set([...this.#noted].filter((line) => !what.includes(line))));
  }

  /** The same for whatever was noted that begins with one of these words. */
  strikeKind(...words: string[]): void {
    this.strike(...[...this.#noted].filter((line) => words.includes(line.split(' ')[0] ?? '')));
  }

  /** Nothing is left to undo. */
  strikeAll(): void {
    this.strike(...this.#noted);
  }

  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  /** The watcher undoes what is open, as it would had this process died: there is one way to do it. */
  async #end(): Promise<void> {
    this.#onRelease();
    await this.#doing;
    if (this.#noted.size === 0) {
      unlinkIfThere(this.#files.journal);
      unlinkIfThere(this.#files.lock);
      this.#watcher.stdin?.end('d');
      return;
    }
    let outcome = await this.#askToUndo();
    if (outcome.status === null) {
      this.#watcher = this.#startWatcher();
      this.#watcherEnd = this.#watch();
      outcome = await this.#askToUndo();
    }
    if (outcome.status === exitPending)
      throw new DormouseError('SUSPEND_TIMEOUT', `${this.#what}: ${outcome.output}`, { guest: 'unknown' });
    if (outcome.status !== 0)
      throw new DormouseError(
        outcome.late ? 'HOST_UNAVAILABLE' : 'INTERNAL',
        `${this.#what} is left ${[...this.#noted].join(', ')}: ${outcome.output || 'the watcher failed'}`,
        { guest: 'unknown' },
      );
  }

  /** One that does not come to its end in time goes on trying by itself. */
  async #askToUndo(): Promise<Outcome> {
    this.#watcher.ref();
    this.#watcher.stdin?.end('u');
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<Outcome>((resolve) => {
      const output = 'the host does not answer; it is being tried further';
      timer = setTimeout(() => resolve({ status: 1, output, late: true }), undoTimeoutMs);
    });
    const outcome = await Promise.race([this.#watcherEnd, late]);
    clearTimeout(timer);
    this.#watcher.unref();
    return outcome;
  }

  #watch(): Promise<Outcome> {
    const end = ended(this.#watcher);
    this.#watcher.stdin?.on('error', () => undefined);
    this.#watcher.unref();
    return end;
  }

  /** What is noted is what the file says, whatever fails. */
  #write(noted: ReadonlySet<Undoable>): void {
    const next = `${this.#files.journal}.new`;
    writeFileSync(next, [...noted].map((line) => `${line}\n`).join(''), { mode: 0o600 });
    renameSync(next, this.#files.journal);
    this.#noted = noted;
  }
}

export class XenLease extends Journalled implements Lease {
  constructor(
    readonly domid: number,
    ...rest: [files: LeaseFiles, watchers: Watchers, onRelease: () => void]
  ) {
    super(`domain ${domid}`, ...rest);
  }
}

/** Of a domain that is being built, which has no id yet: its uuid stands for it. */
export class BuildLease extends Journalled {
  /** An empty folder for what the build hands to others; it goes with the lease. */
  readonly dir: string;

  constructor(uuid: string, files: LeaseFiles, watchers: Watchers) {
    super(`the domain of uuid ${uuid} being built`, files, watchers, () => undefined);
    this.dir = files.dir;
    rmSync(files.dir, { recursive: true, force: true });
    mkdirSync(files.dir, { mode: 0o700 });
  }

  override async release(): Promise<void> {
    await super.release();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export class XenLeases {
  readonly marks: RewindMarks;
  readonly #runDir: string;
  readonly #watcherPath: string;
  readonly #notice: (text: string) => void;

  /** `notice` is told what was undone of a process that died. */
  constructor(runDir: string, watcherPath: string, notice: (text: string) => void) {
    this.marks = new RewindMarks(runDir);
    this.#runDir = runDir;
    this.#watcherPath = watcherPath;
    this.#notice = notice;
  }

  /** LOCKED while another process that lives holds it; what a dead one left is undone first. */
  acquire(domid: number, uuid: string, operation: OperationKind, onRelease: () => void): Promise<XenLease> {
    return this.#take(
      String(domid),
      `${uuid} ${operation}`,
      (files, watchers) => new XenLease(domid, files, watchers, onRelease),
    );
  }

  /** The same for the domain of this uuid that is going to be built. */
  acquireBuild(uuid: string): Promise<BuildLease> {
    return this.#take(
      `build-${uuid}`,
      `${uuid} restore`,
      (files, watchers) => new BuildLease(uuid, files, watchers),
    );
  }

  /** Has undone what processes that are dead, and their watchers too, left of any domain. */
  async undoAllOfDead(): Promise<void> {
    const names = existsSync(this.#runDir) ? readdirSync(this.#runDir) : [];
    for (const name of names.filter((one) => one.endsWith('.lock'))) {
      const key = name.slice(0, -'.lock'.length);
      if (ownerLives(join(this.#runDir, name))) continue;
      await this.#undoOfDead(key).catch((thrown: unknown) => this.#notice((thrown as Error).message));
    }
  }

  async #take<T>(
    key: string,
    purpose: string,
    make: (files: LeaseFiles, watchers: Watchers) => T,
  ): Promise<T> {
    makeFolders(this.#runDir, 0o700);
    const path = (kind: string): string => join(this.#runDir, `${key}.${kind}`);
    const files = { lock: path('lock'), journal: path('journal'), dir: path('dir') };
    const owner = [String(process.pid), startTime(process.pid)];
    // The watcher comes before the lock, so that no moment leaves a lock that nobody looks after.
    const startWatcher = (): ChildProcess => this.#watcher(['watch', this.#runDir, key, ...owner], true);
    const watcher = startWatcher();
    watcher.on('error', () => undefined);
    watcher.stdin?.on('error', () => undefined);
    if (watcher.pid === undefined)
      throw new DormouseError('HOST_UNAVAILABLE', `${this.#watcherPath} cannot be run`);
    try {
      for (let tries = 0; tries < maxTries; tries++) {
        if (this.#tryLock(files.lock, `${owner.join(' ')} ${purpose}\n`))
          return make(files, { first: watcher, start: startWatcher });
        await this.#undoOfDead(key);
      }
      throw new DormouseError('LOCKED', `the lease ${key} keeps changing hands`);
    } catch (thrown) {
      watcher.unref();
      watcher.stdin?.end('d');
      throw thrown;
    }
  }

  /** True if the lock is ours: it appears whole or not at all. */
  #tryLock(path: string, line: string): boolean {
    const mine = `${path}.${process.pid}`;
    writeFileSync(mine, line, { mode: 0o600 });
    try {
      linkSync(mine, path);
      return true;
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw thrown;
    } finally {
      unlinkIfThere(mine);
    }
  }

  async #undoOfDead(key: string): Promise<void> {
    const path = join(this.#runDir, `${key}.lock`);
    const { status, output } = await ended(this.#watcher(['undo', this.#runDir, key], false));
    const what = key.startsWith('build-') ? `domain of uuid ${key.slice('build-'.length)}` : `domain ${key}`;
    const place = { path, ...(/^\d+$/.test(key) && { domid: Number(key) }) };
    if (status === exitAlive)
      throw new DormouseError('LOCKED', `${what} is being worked on: ${describeLock(path)}`, { place });
    if (status === exitPending)
      throw new DormouseError('LOCKED', `${what}: a process that worked on it died; ${output}`, { place });
    if (status !== 0)
      throw new DormouseError(
        'INTERNAL',
        `what a dead process left of ${what} cannot be undone: ${output || `exit code ${status}`}`,
        { place },
      );
    if (output) this.#notice(`${what}: a process that worked on it died; ${output.replace(/\n/g, ', ')}`);
  }

  #watcher(args: string[], detached: boolean): ChildProcess {
    return spawn(this.#watcherPath, args, {
      stdio: [detached ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached,
    });
  }
}

/** Whether the process named in a lock file is there; what cannot be told is left to the watcher. */
function ownerLives(path: string): boolean {
  try {
    const [pid, start] = readFileSync(path, 'utf8').split(' ');
    return startTime(Number(pid)) === start;
  } catch {
    return false;
  }
}

function describeLock(path: string): string {
  try {
    const [pid, , , operation] = readFileSync(path, 'utf8').trim().split(' ');
    return `${operation} by process ${pid}`;
  } catch {
    return 'by another process';
  }
}

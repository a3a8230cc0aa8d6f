/**
 * Who works on which domain. A lease is a lock file that names its owner, a journal of what is to be undone, and a small
 * watcher process that undoes it if the owner dies; if that is dead as well, the next lease finds the files and has it
 * done. native/host/xen/watcher describes the files.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DormouseError } from '../../errors.js';
import type { Lease, OperationKind } from '../contract.js';

/** What a journal may hold, in the watcher's words. */
export type Undoable = 'logdirty' | 'suspend' | 'pause' | 'build' | 'monitor';

const exitAlive = 3;
const maxTries = 10;

interface Outcome {
  readonly status: number | null;
  readonly output: string;
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown;
  }
}

/** Field 22 of /proc/PID/stat: with the pid it names a process for good. */
function startTime(pid: number): string {
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

export class XenLease implements Lease {
  readonly domid: number;
  readonly #files: { readonly lock: string; readonly journal: string };
  /** With what the watcher has to know besides. */
  readonly #noted = new Map<Undoable, string>();
  readonly #startWatcher: () => ChildProcess;
  readonly #onRelease: () => void;
  #watcher: ChildProcess;
  #watcherEnd: Promise<Outcome>;
  #released: Promise<void> | undefined;

  constructor(
    domid: number,
    files: { readonly lock: string; readonly journal: string },
    startWatcher: () => ChildProcess,
    onRelease: () => void,
  ) {
    this.domid = domid;
    this.#files = files;
    this.#startWatcher = startWatcher;
    this.#onRelease = onRelease;
    this.#watcher = startWatcher();
    this.#watcherEnd = this.#watch();
  }

  get isReleased(): boolean {
    return this.#released !== undefined;
  }

  has(what: Undoable): boolean {
    return this.#noted.has(what);
  }

  /** To be called before the thing is done: from then on it is undone if this process dies. */
  note(what: Undoable, detail = ''): void {
    this.#noted.set(what, detail);
    this.#writeJournal();
  }

  /** It is undone. */
  strike(...what: Undoable[]): void {
    for (const one of what) this.#noted.delete(one);
    this.#writeJournal();
  }

  release(): Promise<void> {
    this.#released ??= this.#end();
    return this.#released;
  }

  /** The watcher undoes what is open, as it would had this process died: there is one way to do it. */
  async #end(): Promise<void> {
    this.#onRelease();
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
    if (outcome.status !== 0)
      throw new DormouseError(
        'INTERNAL',
        `domain ${this.domid} is left ${[...this.#noted.keys()].join(', ')}: ${outcome.output || 'the watcher failed'}`,
        { place: { domid: this.domid } },
      );
  }

  #askToUndo(): Promise<Outcome> {
    this.#watcher.ref();
    this.#watcher.stdin?.end('u');
    return this.#watcherEnd;
  }

  #watch(): Promise<Outcome> {
    const end = ended(this.#watcher);
    this.#watcher.stdin?.on('error', () => undefined);
    this.#watcher.unref();
    return end;
  }

  #writeJournal(): void {
    const next = `${this.#files.journal}.new`;
    const lines = [...this.#noted].map(([word, detail]) => `${word}${detail && ` ${detail}`}\n`);
    writeFileSync(next, lines.join(''), { mode: 0o600 });
    renameSync(next, this.#files.journal);
  }
}

export class XenLeases {
  readonly #runDir: string;
  readonly #watcherPath: string;
  readonly #notice: (text: string) => void;

  /** `notice` is told what was undone of a process that died. */
  constructor(runDir: string, watcherPath: string, notice: (text: string) => void) {
    this.#runDir = runDir;
    this.#watcherPath = watcherPath;
    this.#notice = notice;
  }

  /** LOCKED while another process that lives holds it; what a dead one left is undone first. */
  async acquire(
    domid: number,
    uuid: string,
    operation: OperationKind,
    onRelease: () => void,
  ): Promise<XenLease> {
    mkdirSync(this.#runDir, { recursive: true, mode: 0o700 });
    const files = {
      lock: join(this.#runDir, `${domid}.lock`),
      journal: join(this.#runDir, `${domid}.journal`),
    };
    const pid = String(process.pid);
    const start = startTime(process.pid);
    const line = `${pid} ${start} ${uuid} ${operation}\n`;
    for (let tries = 0; tries < maxTries; tries++) {
      if (this.#tryLock(files.lock, line)) {
        const startWatcher = (): ChildProcess =>
          this.#watcher(['watch', this.#runDir, String(domid), pid, start], true);
        try {
          return new XenLease(domid, files, startWatcher, onRelease);
        } catch (thrown) {
          unlinkIfThere(files.lock);
          throw thrown;
        }
      }
      await this.#undoOfDead(domid, files.lock);
    }
    throw new DormouseError('LOCKED', `the lease of domain ${domid} keeps changing hands`, {
      place: { domid },
    });
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

  async #undoOfDead(domid: number, lockPath: string): Promise<void> {
    const { status, output } = await ended(this.#watcher(['undo', this.#runDir, String(domid)], false));
    const place = { domid, path: lockPath };
    if (status === exitAlive)
      throw new DormouseError('LOCKED', `domain ${domid} is being worked on: ${describeLock(lockPath)}`, {
        place,
      });
    if (status !== 0)
      throw new DormouseError(
        'INTERNAL',
        `what a dead process left of domain ${domid} cannot be undone: ${output}`,
        {
          place,
        },
      );
    if (output)
      this.#notice(`domain ${domid}: a process that worked on it died; ${output.replace(/\n/g, ', ')}`);
  }

  #watcher(args: string[], detached: boolean): ChildProcess {
    return spawn(this.#watcherPath, args, {
      stdio: [detached ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      detached,
    });
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

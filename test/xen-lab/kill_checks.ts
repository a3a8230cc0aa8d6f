/**
 * Kills processes that work on guests at random moments, in dom0: node kill_checks.js COUNT SEED PV-GUEST PVH-GUEST. After
 * each kill, within 5 s: the guest runs again or the new domain is gone, and nothing else is left. One line of JSON a kill.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openXenHost, type XenHost } from '../../src/host/xen/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { random } from './random.js';
import type { VictimRequest, VictimVerb } from './victim.js';
import type { DomainInfo } from '../../src/domain/state.js';

const verbs: VictimVerb[] = ['light', 'save', 'restore', 'cooperative', 'save -c'];
const undoneMs = 5000;
const dir = '/images/kill';
const runDir = '/run/dormouse/xen';
const copyName = 'copy';

/** What is killed besides the process itself. */
type Also = 'nothing' | 'watcher' | 'all';

interface Moment {
  readonly event: string;
  /** Which of the events of that name. */
  readonly nth: number;
  readonly delayMs: number;
}

interface Seen {
  readonly event: string;
  readonly atMs: number;
}

/** A process that is loaded and waits for its work. */
class Victim {
  readonly events: Seen[] = [];
  readonly ended: Promise<unknown>;
  readonly #child: ChildProcess;
  readonly #ready: Promise<void>;
  #startedMs = 0;
  #listener: (event: string) => void = () => undefined;

  constructor() {
    const script = fileURLToPath(new URL('victim.js', import.meta.url));
    this.#child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.ended = once(this.#child, 'close');
    this.#child.stdin?.on('error', () => undefined);
    const { stdout } = this.#child;
    assert.ok(stdout);
    const lines = createInterface({ input: stdout });
    this.#ready = once(lines, 'line').then(() => undefined);
    lines.on('line', (event) => {
      this.events.push({ event, atMs: performance.now() - this.#startedMs });
      this.#listener(event);
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async start(request: VictimRequest): Promise<void> {
    await this.#ready;
    this.#startedMs = performance.now();
    this.#child.stdin?.write(`${JSON.stringify(request)}\n`);
  }

  /** Resolves at that moment, or when the process has ended. */
  async reaches({ event, nth, delayMs }: Moment): Promise<void> {
    let left = nth;
    const reached = new Promise<void>((resolve) => {
      this.#listener = (seen) => {
        if (seen === event && left-- === 0) resolve();
      };
    });
    await Promise.race([reached, this.ended]);
    await Promise.race([sleep(delayMs), this.ended]);
  }
}

function processes(what: RegExp): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((pid) => {
    try {
      return what.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' '));
    } catch {
      return false;
    }
  });
}

function isStopped(pid: number): boolean {
  try {
    return /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

const leftFiles = (path: string): string[] => (existsSync(path) ? readdirSync(path) : []);

/** What keeps the host from being as if nothing had been under way; empty when all is well. */
async function leftOvers(host: XenHost, guest: string): Promise<string[]> {
  const all = await host.list();
  const left = leftFiles(runDir).map((name) => `${runDir}/${name}`);
  for (const { domid, name, dying } of all) if (dying) left.push(`domain ${domid} ${name} is dying`);
  const found = all.find(({ name }) => name === guest);
  if (found && (found.paused || found.shutdown !== null)) left.push(`${guest} does not run`);
  for (const pid of processes(/dormouse-xen-watcher|save-helper/)) left.push(`process ${pid}`);
  for (const pid of processes(/^xl /)) if (isStopped(pid)) left.push(`the monitor ${pid} is stopped`);
  const copy = all.find(({ name }) => name === copyName);
  if (copy && (copy.paused || copy.shutdown !== null)) left.push('a half-built domain');
  return left;
}

class Run {
  readonly #timelines = new Map<VictimVerb, Seen[]>();
  readonly #random: () => number;
  readonly #host: XenHost;
  readonly #notices: string[] = [];
  #next = new Victim();

  private constructor(host: XenHost, seed: number) {
    this.#host = host;
    this.#random = random(seed);
  }

  static async open(seed: number): Promise<Run> {
    return new Run(await openXenHost(), seed);
  }

  async close(): Promise<void> {
    kill(this.#next.pid);
    await this.#next.ended;
    await this.#host.close();
  }

  base(guest: string): string {
    return `${dir}/base-${guest}`;
  }

  /** An image of the guest, which goes on, for restores. */
  async prepare(guest: string): Promise<void> {
    await save(this.#host, guest, this.base(guest), { then: 'resume' });
  }

  #request(verb: VictimVerb, guest: string): VictimRequest {
    const image = verb === 'restore' ? this.base(guest) : `${dir}/new`;
    return { verb, guest, image, name: copyName };
  }

  #take(): Victim {
    const victim = this.#next;
    this.#next = new Victim();
    return victim;
  }

  /** Runs it to its end once, to know what there is to see of it. */
  async #timeline(verb: VictimVerb, guest: string): Promise<Seen[]> {
    const known = this.#timelines.get(verb);
    if (known) return known;
    const victim = this.#take();
    await victim.start(this.#request(verb, guest));
    await victim.ended;
    const seen = victim.events.slice(1);
    assert.equal(seen.at(-1)?.event, 'closed', `${verb} failed: ${JSON.stringify(seen)}`);
    const beforeEnd = seen.slice(0, -1);
    this.#timelines.set(verb, beforeEnd);
    await this.#settle(verb, guest);
    return beforeEnd;
  }

  /** Half of them spread evenly over the time it takes, half over the kinds of events, however short they are. */
  #moment(timeline: readonly Seen[]): Moment {
    const at = (i: number): Seen => timeline[i] ?? { event: 'done', atMs: 0 };
    const momentAt = (i: number, delayMs: number): Moment => {
      const { event } = at(i);
      return { event, nth: timeline.slice(0, i).filter((seen) => seen.event === event).length, delayMs };
    };
    if (this.#random() < 0.5) {
      const ms = this.#random() * at(timeline.length - 1).atMs;
      const after = timeline.findIndex(({ atMs }) => atMs > ms);
      const last = after <= 0 ? 0 : after - 1;
      return momentAt(last, Math.max(0, ms - at(last).atMs));
    }
    const kinds = [...new Set(timeline.map(({ event }) => event))];
    const kind = kinds[Math.floor(this.#random() * kinds.length)];
    const all = [...timeline.keys()].filter((i) => at(i).event === kind);
    const i = all[Math.floor(this.#random() * all.length)] ?? 0;
    const gapMs = Math.max(0, at(Math.min(i + 1, timeline.length - 1)).atMs - at(i).atMs);
    return momentAt(i, this.#random() * Math.min(gapMs, 50));
  }

  /** Null where it had come to its end before that moment. */
  async killOnce(verb: VictimVerb, guest: string, also: Also): Promise<object | null> {
    const moment = this.#moment(await this.#timeline(verb, guest));
    const asked = { verb, guest, also, moment };
    const before = this.#oldImages();
    const victim = this.#take();
    await victim.start(this.#request(verb, guest));
    await victim.reaches(moment);
    const last = victim.events.at(-1)?.event;
    if (last === 'closed') {
      await victim.ended;
      await this.#settle(verb, guest);
      return null;
    }
    const journals = this.#killAll(victim, also);
    await victim.ended;
    const killedMs = performance.now();
    if (also !== 'nothing') await this.#nextVerb(journals);
    await this.#undone(guest, { ...asked, last, journals });
    const undoneInMs = Math.round(performance.now() - killedMs);
    assert.deepEqual(this.#oldImages(), before, 'old images');
    await this.#settle(verb, guest);
    return { ...asked, last, undoneInMs, notices: this.#notices.splice(0) };
  }

  /** Returns what the journals held. */
  #killAll(victim: Victim, also: Also): string {
    const watchers = processes(new RegExp(`dormouse-xen-watcher.* ${victim.pid} `));
    if (also !== 'nothing') for (const pid of watchers) kill(pid);
    kill(victim.pid);
    const names = leftFiles(runDir).filter((name) => name.endsWith('.journal'));
    const journals = names.map((name) => readFileSync(`${runDir}/${name}`, 'utf8')).join('');
    const xl = /^group (\d+)/m.exec(journals)?.[1];
    if (also === 'all')
      for (const pid of [...processes(/save-helper/), Number(xl ?? 0)]) if (pid > 1) kill(pid);
    return journals;
  }

  /** Opening the host is what each verb begins with: it undoes what is left, and says so. */
  async #nextVerb(journals: string): Promise<void> {
    const host = await openXenHost({ notice: (text) => this.#notices.push(text) });
    await host.close();
    const undoable = /^(logdirty|suspend .*|suspended|pause|destroy)$/m.test(journals);
    if (undoable) assert.match(this.#notices.join('\n'), /a process that worked on it died/, journals);
  }

  async #undone(guest: string, killed: object): Promise<void> {
    const endMs = performance.now() + undoneMs;
    let left = await leftOvers(this.#host, guest);
    while (left.length > 0) {
      assert.ok(
        performance.now() < endMs,
        `${JSON.stringify(killed)}: ${left.join('; ')} after ${undoneMs} ms`,
      );
      await sleep(50);
      left = await leftOvers(this.#host, guest);
    }
  }

  #oldImages(): string[] {
    return readdirSync(dir)
      .filter((name) => name.startsWith('base-'))
      .map((name) => {
        const { size, mtimeMs, ino } = statSync(`${dir}/${name}`);
        return `${name} ${size} ${mtimeMs} ${ino}`;
      });
  }

  /** What is there is whole: the image if it has its name, else the guest. Then all is put back as it was. */
  async #settle(verb: VictimVerb, guest: string): Promise<void> {
    const copy = (await this.#host.list()).find(({ name }) => name === copyName);
    if (copy) await this.#host.destroy(copy.domid);
    const image = `${dir}/new`;
    const others = readdirSync(dir).filter((name) => !name.startsWith('base-') && name !== 'new');
    assert.deepEqual(others, [], 'half-named images');
    if (existsSync(image)) {
      assert.ok(verb !== 'restore');
      assert.deepEqual((await verifyImage(image)).findings, []);
    }
    const found = (await this.#host.list()).find(({ name }) => name === guest);
    if (verb === 'save') assert.equal(found === undefined, existsSync(image), 'the image decides');
    if (!found) {
      assert.ok(verb === 'save' && existsSync(image), `${guest} is gone`);
      await restore(this.#host, image, { paused: false });
    } else await this.#logsNothing(found);
    rmSync(image, { force: true });
  }

  /** Turning log-dirty on fails where it is on. */
  async #logsNothing({ domid, type }: DomainInfo): Promise<void> {
    if (type === 'pv') return;
    const lease = await this.#host.acquire(domid, 'checkpoint');
    await (await this.#host.tracker(lease)).off();
    await lease.release();
  }
}

const [count = '1', seed = '1', ...guests] = process.argv.slice(2);
rmSync(dir, { recursive: true, force: true });
mkdirSync(dir);
const run = await Run.open(Number(seed));
for (const guest of guests) await run.prepare(guest);
for (let i = 0; i < Number(count);) {
  const verb = verbs[i % verbs.length] ?? 'save';
  const guest = guests[((i % verbs.length) + Math.floor(i / verbs.length)) % guests.length] ?? '';
  const also: Also = i % 6 === 4 ? 'watcher' : i % 6 === 2 && verb === 'restore' ? 'all' : 'nothing';
  const killed = await run.killOnce(verb, guest, also);
  if (killed === null) continue;
  process.stdout.write(`${JSON.stringify(killed)}\n`);
  i++;
}
await run.close();
rmSync(dir, { recursive: true, force: true });
process.exit(0);

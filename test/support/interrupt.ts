/** Tools that are interrupted at random moments, and the guests that must not notice. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestDomain } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { verifyImage } from '../../src/image/verify.js';
import type { Then } from '../../src/capture/after_commit.js';
import { restore } from '../../src/restore/restore.js';
import { type Ended, startCommand } from './command.js';
import { bootGuest, runToEnd, type GuestPlan } from './guests.js';
import { until } from './hosts.js';
import { random } from './images.js';

/** Steps at 1000 a second: a guest lives some five seconds. */
export const livelyPlan: GuestPlan = {
  program: 'writer',
  vcpus: 2,
  seed: 4711,
  steps: 5000,
  rate: 1000,
  memoryMib: 48,
};

/** Guests of one plan: each is used while it has half of its life before it, and must end as one left untouched. */
export class Guests {
  readonly #names: string[] = [];

  private constructor(
    private readonly host: EmbeddedHost,
    private readonly plan: GuestPlan,
  ) {}

  static async start(host: EmbeddedHost, plan: GuestPlan): Promise<Guests> {
    await bootGuest(host, 'untouched', plan);
    return new Guests(host, plan);
  }

  /** Name of a guest that has at least half of its steps to do. */
  async current(): Promise<string> {
    const name = this.#names.at(-1);
    if (name !== undefined && (await this.steps(name)) < (this.plan.steps * this.plan.vcpus) / 2) return name;
    const fresh = `guest-${this.#names.length}`;
    await bootGuest(this.host, fresh, this.plan);
    this.#names.push(fresh);
    return fresh;
  }

  /** Steps done by all vCPUs together. */
  async steps(name: string): Promise<number> {
    const { domid } = await this.host.find(name);
    return (await this.host.progress(domid)).steps.reduce((sum, steps) => sum + steps, 0);
  }

  /** It gets ahead of `from`, or has done all it had to, within `limitMs`. */
  async assertGoesOn(name: string, from: number, limitMs: number): Promise<void> {
    const all = this.plan.steps * this.plan.vcpus;
    await until(`${name} goes on after step ${from}`, limitMs, async () => {
      const now = await this.steps(name);
      return now > from || now === all;
    });
  }

  /** Every guest, run to its end, has the digest of the one that nobody touched. */
  async assertAllAsUntouched(): Promise<void> {
    const digestOf = async (name: string): Promise<string> => {
      await runToEnd(this.host, name, this.plan);
      return (await digestDomain(this.host, name)).digest;
    };
    const untouched = await digestOf('untouched');
    assert.ok(this.#names.length > 0);
    for (const name of this.#names) assert.equal(await digestOf(name), untouched, name);
  }
}

/** How long a run takes: until its lease is taken, and from there to its end. */
export interface Pace {
  leaseMs: number;
  workMs: number;
}

export interface Interrupted {
  readonly ended: Ended;
  /** The tool had its lease when the signal was sent. */
  readonly working: boolean;
}

/** Whether a process works on a domain of the host. */
const leased = async (host: EmbeddedHost, pid: number): Promise<boolean> =>
  (await host.status()).leases.some((lease) => lease.pid === pid);

/** Runs a command line to its end and says how long its parts took. */
export async function measurePace(
  t: TestContext,
  host: EmbeddedHost,
  args: readonly string[],
): Promise<Pace> {
  const startedMs = performance.now();
  const run = startCommand(t, args);
  await until('the tool takes its lease', 60_000, () => leased(host, run.pid));
  const leaseMs = performance.now() - startedMs;
  const { exitCode, stderr } = await run.ended;
  assert.equal(exitCode, 0, stderr);
  return { leaseMs, workMs: performance.now() - startedMs - leaseMs };
}

/**
 * Sends a signal at a random moment: one time in five from the start of the process on, else while it works. `next`
 * gives random numbers below its argument.
 */
export async function interrupt(
  t: TestContext,
  host: EmbeddedHost,
  args: readonly string[],
  how: { readonly signal: NodeJS.Signals; readonly pace: Pace; readonly next: (below: number) => number },
): Promise<Interrupted> {
  const { pace, next } = how;
  const run = startCommand(t, args);
  const seen = { over: false };
  void run.ended.then(() => (seen.over = true));
  if (next(5) === 0) await sleep(next(Math.ceil(pace.leaseMs)));
  else {
    await until(
      'the tool takes its lease or ends',
      60_000,
      async () => seen.over || (await leased(host, run.pid)),
    );
    await sleep(next(Math.ceil(pace.workMs)));
  }
  const working = await leased(host, run.pid);
  // The machine's speed changes from one run to the next: the window follows it.
  if (working) pace.workMs *= 1.1;
  else if (seen.over) pace.workMs = Math.max(1, pace.workMs * 0.6);
  run.kill(how.signal);
  return { ended: await run.ended, working };
}

/** What an interrupted tool must leave as it was. */
export class Undisturbed {
  private constructor(
    private readonly host: EmbeddedHost,
    private readonly folder: string,
    private readonly freeBytes: number,
    private readonly files: readonly string[],
  ) {}

  static async note(host: EmbeddedHost, folder: string): Promise<Undisturbed> {
    return new Undisturbed(host, folder, (await host.status()).freeBytes, readdirSync(folder));
  }

  /** No lease, snapshot or quarantined frame; free frames as before. */
  async assertHost(limitMs: number): Promise<void> {
    const leftOver = async (): Promise<string[]> => {
      const { leases, snapshots, quarantinedBytes, freeBytes } = await this.host.status();
      return [
        ...(leases.length > 0 ? ['a lease'] : []),
        ...(snapshots > 0 ? ['a snapshot'] : []),
        ...(quarantinedBytes > 0 ? ['quarantined frames'] : []),
        ...(freeBytes === this.freeBytes ? [] : [`${freeBytes} bytes free, not ${this.freeBytes}`]),
      ];
    };
    let left: string[] = [];
    await until('nothing is left behind', limitMs, async () => {
      left = await leftOver();
      return left.length === 0;
    }).catch(() => assert.fail(`left behind: ${left.join(', ')}`));
  }

  /** The folder holds nothing new but `image`, if that is there, whole. Returns whether it is. */
  async assertFolder(image: string): Promise<boolean> {
    const isNew = readdirSync(this.folder).filter((file) => !this.files.includes(file));
    const expected = existsSync(join(this.folder, image)) ? [image] : [];
    assert.deepEqual(isNew, expected);
    if (expected.length === 0) return false;
    const { findings } = await verifyImage(join(this.folder, image));
    assert.deepEqual(findings, []);
    return true;
  }
}

/** Gives back a guest that a completed save took away or left paused, and removes the image. */
async function putBack(host: EmbeddedHost, name: string, image: string): Promise<void> {
  const info = (await host.list()).find((other) => other.name === name);
  if (!info) await restore(host, image, { paused: false });
  else if (info.paused) await host.unpause(info.domid);
  rmSync(image, { force: true });
}

export interface Campaign {
  /** Arguments of the verb that is interrupted at work on the domain `name`. */
  readonly args: (name: string, image: string) => readonly string[];
  /** What it makes of the domain. With the image there the domain is that and nothing else; without, it runs. */
  readonly then: Then;
  readonly signals: readonly NodeJS.Signals[];
  readonly times: number;
  readonly seed: number;
  /** Judges how the tool ended, `whole` if its image is there. Returns whether the signal came at the right time. */
  readonly judge: (run: Interrupted, signal: NodeJS.Signals, whole: boolean) => boolean;
}

const becomes: Readonly<Record<Then, string>> = { destroy: 'gone', pause: 'paused', resume: 'running' };

/** One interruption: the guest goes on within a second, or is what its image makes of it; nothing else is left. */
async function interruptOnce(
  t: TestContext,
  host: EmbeddedHost,
  guests: Guests,
  folder: string,
  campaign: Campaign,
  how: Parameters<typeof interrupt>[3],
): Promise<boolean> {
  const name = await guests.current();
  const file = `${name}.dmi`;
  const image = join(folder, file);
  const before = await Undisturbed.note(host, folder);
  const run = await interrupt(t, host, campaign.args(name, image), how);
  await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
  const info = (await host.list()).find((other) => other.name === name);
  const whole = await before.assertFolder(file);
  const is = !info ? 'gone' : info.paused ? 'paused' : 'running';
  assert.equal(
    is,
    whole ? becomes[campaign.then] : 'running',
    whole ? 'beside its image' : 'without an image',
  );
  if (info && !info.paused) await guests.assertGoesOn(name, await guests.steps(name), 5000);
  const hit = campaign.judge(run, how.signal, whole);
  await putBack(host, name, image);
  await before.assertHost(5000);
  return hit;
}

/** A campaign goes on, up to so many times its length, until enough signals came at the right time. */
export const mostRounds = 4;

/** Interrupts a verb many times. It shows something only if signals come while the verb works. */
export async function interruptMany(
  t: TestContext,
  host: EmbeddedHost,
  folder: string,
  campaign: Campaign,
): Promise<void> {
  t.diagnostic(`seed ${campaign.seed}`);
  const next = random(campaign.seed);
  const guests = await Guests.start(host, livelyPlan);
  const first = await guests.current();
  const image = join(folder, 'measured.dmi');
  const pace = await measurePace(t, host, campaign.args(first, image));
  await putBack(host, first, image);
  const enough = campaign.times / 6;
  let hits = 0;
  let i = 0;
  for (; i < campaign.times || (hits < enough && i < campaign.times * mostRounds); i++) {
    const signal = campaign.signals[i % campaign.signals.length] ?? 'SIGKILL';
    const how = { signal, pace, next };
    const hit = await interruptOnce(t, host, guests, folder, campaign, how).catch((cause: unknown) => {
      throw new Error(`interruption ${i} of seed ${campaign.seed}`, { cause });
    });
    if (hit) hits += 1;
  }
  t.diagnostic(`${hits} of ${i} signals came while it worked`);
  assert.ok(hits >= enough, `only ${hits} of ${i} signals came while it worked`);
  await guests.assertAllAsUntouched();
}

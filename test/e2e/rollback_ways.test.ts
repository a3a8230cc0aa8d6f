/** What a domain may have gone through before it is rolled back, and what it may go back to: many points, increments, PVH, safety. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { rollback, type RollbackResult } from '../../src/rollback/rollback.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { steps } from '../../src/worker/steps.js';
import { bootGuest, finalDigest, runToEnd, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { body, page, pvhDomain, random, tempDir, writeImage } from '../support/images.js';
import { plainHost } from '../support/plain_host.js';

const seed = Number(process.env.DORMOUSE_ROLLBACK_SEED ?? Date.now() % 1_000_000_000);

async function setUp(t: TestContext): Promise<{ host: EmbeddedHost; at: (name: string) => string }> {
  const host = await startTestHost(t, { memoryMib: 512 });
  const dir = tempDir(t);
  t.after(closeWorkers);
  return { host, at: (name) => join(dir, name) };
}

const plan: GuestPlan = { program: 'churner', vcpus: 2, seed: 77, steps: 3000, rate: 3000, memoryMib: 16 };

async function assertAs(host: EmbeddedHost, image: string): Promise<void> {
  assert.equal((await digestDomain(host, 'guest')).digest, (await digestImage(image)).digest, image);
}

/** Paused before and after, so that what it is can be held against the image. */
async function backTo(host: EmbeddedHost, image: string, safety?: string): Promise<RollbackResult> {
  const { domid } = await host.find('guest');
  await host.pause(domid);
  const result = await rollback(host, 'guest', image, safety === undefined ? {} : { safety });
  await assertAs(host, image);
  await host.unpause(domid);
  return result;
}

for (const program of ['writer', 'churner'] as const)
  test(`${program}: ten times in a row to random points of a chain of increments`, async (t) => {
    const { host, at } = await setUp(t);
    t.diagnostic(`seed ${seed}`);
    const next = random(seed);
    const guest = { ...plan, program };
    const untouched = await untouchedDigest(host, guest);
    await bootGuest(host, 'guest', guest);
    const points: string[] = [];
    for (let i = 0; i < 6; i++) {
      await sleep(20 + next(40));
      const [path, before] = [at(`point-${i}`), points.at(-1)];
      await checkpoint(host, 'guest', path, {
        mode: i % 3 === 2 ? 'cooperative' : 'light',
        ...(before !== undefined && { incrementalFrom: before }),
      });
      points.push(path);
    }
    for (let i = 0; i < 10; i++) {
      await sleep(next(80));
      await backTo(host, points[next(points.length)] ?? '');
    }
    assert.equal(await finalDigest(host, 'guest', guest), untouched);
  });

type Act =
  | { kind: 'run'; ms: number }
  | { kind: 'point'; increment: boolean }
  | { kind: 'back'; to: number; safe: boolean; running: boolean };

const act: fc.Arbitrary<Act> = fc.oneof(
  fc.record({ kind: fc.constant('run' as const), ms: fc.nat(60) }),
  fc.record({ kind: fc.constant('point' as const), increment: fc.boolean() }),
  fc.record({
    kind: fc.constant('back' as const),
    to: fc.nat(),
    safe: fc.boolean(),
    running: fc.boolean(),
  }),
);

class Story {
  readonly points: string[] = [];
  #number = 0;

  constructor(
    private readonly host: EmbeddedHost,
    private readonly at: (name: string) => string,
  ) {}

  async perform(one: Act): Promise<void> {
    const { host, points } = this;
    const fresh = this.at(`${++this.#number}-${points.length}.dmi`);
    if (one.kind === 'run') await sleep(one.ms);
    else if (one.kind === 'point') {
      const parent = one.increment ? points.at(-1) : undefined;
      const options = parent === undefined ? {} : { incrementalFrom: parent };
      const taken = checkpoint(host, 'guest', fresh, { mode: 'light', ...options });
      if (await this.#unlessCrashed(taken)) points.push(fresh);
    } else if (points.length > 0) {
      const image = points[one.to % points.length] ?? '';
      const ended = (await host.find('guest')).shutdown !== null;
      const safe = one.safe && !ended;
      const back = async (safety?: string): Promise<unknown> =>
        one.running
          ? await rollback(host, 'guest', image, safety === undefined ? {} : { safety })
          : await backTo(host, image, safety);
      if (safe && (await this.#unlessCrashed(back(fresh)))) points.push(fresh);
      else await back();
    }
  }

  /** One that crashes may do so right before; there is no point of it then. */
  async #unlessCrashed(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (thrown) {
      if ((await this.host.find('guest')).shutdown !== 'crash') throw thrown;
      assert.equal((thrown as { code?: string }).code, 'DOMAIN_WRONG_STATE');
      return false;
    }
  }
}

test('whatever is done with points of it, a guest ends as one left untouched', async (t) => {
  const { host, at } = await setUp(t);
  const programs = ['counter', 'writer', 'churner', 'crasher'] as const;
  let number = 0;
  const story = fc.asyncProperty(
    fc.constantFrom(...programs),
    fc.integer({ min: 1, max: 4 }),
    fc.array(act, { minLength: 4, maxLength: 10 }),
    async (program, vcpus, acts) => {
      const guest = { ...plan, program, vcpus, steps: 800, memoryMib: 8, seed: 5000 + ++number };
      const untouched = await untouchedDigest(host, guest);
      await bootGuest(host, 'guest', guest);
      const told = new Story(host, (name) => at(`${number}-${name}`));
      await told.perform({ kind: 'point', increment: false });
      for (const one of acts) await told.perform(one);
      assert.equal(await finalDigest(host, 'guest', guest), untouched);
    },
  );
  const outcome = await fc.check(story, { numRuns: 15, seed, endOnFailure: true });
  t.diagnostic(`seed ${outcome.seed}, ${outcome.numRuns} stories`);
  const why = outcome.errorInstance as Error | null;
  assert.ok(!outcome.failed, `${fc.defaultReportMessage(outcome)}\n${why?.stack ?? ''}`);
});

test('frames that went and came since the point are given back and taken away', async (t) => {
  const { host, at } = await setUp(t);
  const guest: GuestPlan = { ...plan, program: 'idle', vcpus: 1 };
  const domid = await bootGuest(host, 'guest', guest);
  const image = at('point');
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const { memoryKib } = await host.find('guest');
  await host.pause(domid);
  await host.balloon(domid, 3000, 500, false);
  await host.balloon(domid, 3100, 50, true);
  const { putPages } = await rollback(host, 'guest', image);
  assert.ok(putPages >= 450, `${putPages} put`);
  await assertAs(host, image);
  assert.equal((await host.find('guest')).memoryKib, memoryKib);
});

test('a safety image is the domain as it was right before, and leads back there', async (t) => {
  const { host, at } = await setUp(t);
  const guest = { ...plan, program: 'writer' as const };
  const untouched = await untouchedDigest(host, guest);
  const domid = await bootGuest(host, 'guest', guest);
  await sleep(20);
  await checkpoint(host, 'guest', at('early'), { mode: 'light' });
  await sleep(100);
  const there = await rollback(host, 'guest', at('early'), { safety: at('late') });
  assert.equal(there.safety, at('late'));
  assert.deepEqual((await verifyImage(at('late'))).findings, []);
  await backTo(host, at('late'));
  await runToEnd(host, 'guest', guest);
  assert.equal((await digestDomain(host, 'guest')).digest, untouched);
  // It is an image as any other: a new domain can be made of it.
  await host.destroy(domid);
  await restore(host, at('late'), { paused: false });
  assert.equal(await finalDigest(host, 'guest', guest), untouched);
});

test('of a domain that has crashed there is no safety image, and it goes back without', async (t) => {
  const { host, at } = await setUp(t);
  const guest = { ...plan, program: 'crasher' as const, steps: 800, rate: 1000 };
  await bootGuest(host, 'guest', guest);
  await checkpoint(host, 'guest', at('point'), { mode: 'light' });
  await runToEnd(host, 'guest', guest);
  await assert.rejects(rollback(host, 'guest', at('point'), { safety: at('late') }), {
    code: 'DOMAIN_WRONG_STATE',
    advice: /--no-safety/,
  });
  assert.equal(existsSync(at('late')), false);
  assert.equal((await host.find('guest')).shutdown, 'crash');
  await rollback(host, 'guest', at('point'));
  assert.equal((await host.find('guest')).shutdown, null);
  await runToEnd(host, 'guest', guest);
});

test('a PVH domain goes back', async (t) => {
  const { host, at } = await setUp(t);
  const next = random(seed);
  const nrPfns = 600;
  const none = Buffer.alloc(0);
  const blank = {
    ...{ vcpus: [], sharedInfo: none, tscInfo: none, cpuidPolicy: none },
    ...{ msrPolicy: none, hvmContext: none },
  };
  const plain = (pfn: number) => {
    const made = page(pfn, next);
    return made.pageClass === 'table' ? { ...made, pageClass: 'data' as const, type: 0 } : made;
  };
  const change = {
    domain: { ...pvhDomain, maxMemoryKib: nrPfns * 4 },
    geometry: { nrPfns, guestWidth: 0 as const, p2mFrames: [], p2mGeneration: 0 },
    state: { ...blank, hvmParams: Buffer.alloc(32, 7) },
  };
  const pages = Array.from({ length: nrPfns }, (_, pfn) => plain(pfn)).filter(
    ({ pageClass }) => pageClass !== 'alloc' && pageClass !== 'broken',
  );
  const known = new Set(pages.map(({ pfn }) => pfn));
  for (let pfn = 0; pfn < nrPfns; pfn++)
    if (!known.has(pfn)) pages.push({ pfn, pageClass: 'zero', type: 0, body: null });
  await writeImage(at('point'), nrPfns, [pages], {}, change);
  const { domid } = await restore(host, at('point'), { paused: true });
  await assertAs(host, at('point'));
  const written = pages.filter(({ body: has }) => has).slice(0, 40);
  const view = await host.openToRewrite(domid);
  for (const { pfn } of written) steps().writePages(view.handle, BigUint64Array.of(BigInt(pfn)), body(next));
  view.close();
  const { putPages } = await rollback(host, 'guest', at('point'));
  assert.equal(putPages, written.length);
  await assertAs(host, at('point'));
});

test('a host without a log is compared again in the pause', async (t) => {
  const { host, at } = await setUp(t);
  const guest = { ...plan, program: 'churner' as const };
  const untouched = await untouchedDigest(host, guest);
  await bootGuest(host, 'guest', guest);
  await sleep(20);
  await checkpoint(host, 'guest', at('point'), { mode: 'light' });
  for (let i = 0; i < 3; i++) {
    await sleep(40);
    await rollback(plainHost(host, { tracker: 'content' }), 'guest', at('point'));
  }
  assert.equal(await finalDigest(host, 'guest', guest), untouched);
});

test('an image that save -c left, and a domain that was restored from one, go back', async (t) => {
  const { host, at } = await setUp(t);
  const guest = { ...plan, program: 'writer' as const };
  const untouched = await untouchedDigest(host, guest);
  const domid = await bootGuest(host, 'guest', guest);
  await sleep(20);
  await save(host, 'guest', at('saved'), { then: 'resume' });
  await sleep(50);
  await rollback(host, 'guest', at('saved'));
  await sleep(50);
  await host.destroy(domid);
  await restore(host, at('saved'), { paused: false });
  await sleep(50);
  await backTo(host, at('saved'));
  assert.equal(await finalDigest(host, 'guest', guest), untouched);
});

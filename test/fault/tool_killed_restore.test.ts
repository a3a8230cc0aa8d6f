/** `kill -9` of `restore` at random moments: the new domain is gone, or it is complete. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { digestDomain, digestImage } from '../../src/digest/digest.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost, until } from '../support/hosts.js';
import { random, tempDir } from '../support/images.js';
import { interrupt, livelyPlan, measurePace, Undisturbed, type Interrupted } from '../support/interrupt.js';
import { killSeed, kills } from '../support/killed.js';

const steps = async (host: EmbeddedHost, domid: number): Promise<number> =>
  (await host.progress(domid)).steps.reduce((sum, done) => sum + done, 0);

/** A domain that the killed tool had completed is the image's. Paused where it was to be, or where it was not let go. */
async function assertComplete(host: EmbeddedHost, image: string, paused: boolean): Promise<void> {
  const { domid, building, paused: isPaused } = await host.find('copy');
  assert.equal(building, false);
  if (paused) assert.equal((await digestDomain(host, 'copy')).digest, (await digestImage(image)).digest);
  if (isPaused) await host.unpause(domid);
  const from = await steps(host, domid);
  await until('the copy runs', 1000, async () => (await steps(host, domid)) > from);
}

async function killOnce(
  t: TestContext,
  host: EmbeddedHost,
  image: string,
  paused: boolean,
  how: Omit<Parameters<typeof interrupt>[3], 'signal'>,
): Promise<Interrupted> {
  const before = await Undisturbed.note(host, join(image, '..'));
  const bystander = await host.find('bystander');
  const args = ['restore', '--host', 'embedded:test', '--name', 'copy', ...(paused ? ['-p'] : []), image];
  const run = await interrupt(t, host, args, { ...how, signal: 'SIGKILL' });
  assert.ok(run.ended.signal === 'SIGKILL' || run.ended.exitCode === 0, run.ended.stderr);
  await until('the lease ends', 5000, async () => (await host.status()).leases.length === 0);
  const copy = (await host.list()).find(({ name }) => name === 'copy');
  if (copy) {
    await assertComplete(host, image, paused);
    await host.destroy(copy.domid);
  }
  await before.assertHost(5000);
  const from = await steps(host, bystander.domid);
  await until('the other guest runs', 1000, async () => (await steps(host, bystander.domid)) > from);
  assert.deepEqual(
    (await host.xenstore.list('/local/domain')).sort(),
    (await host.list()).map(({ domid }) => String(domid)).sort(),
  );
  return run;
}

test(`restore, killed ${kills} times`, async (t) => {
  const host = await startTestHost(t, { memoryMib: 512 });
  t.after(closeWorkers);
  t.diagnostic(`seed ${killSeed}`);
  const image = join(tempDir(t), 'guest.dmi');
  await bootGuest(host, 'bystander', { ...livelyPlan, steps: 0 });
  await checkpoint(host, 'bystander', image, { mode: 'light' });
  const bytes = readFileSync(image);
  const args = ['restore', '--host', 'embedded:test', '--name', 'copy', image];
  const pace = await measurePace(t, host, args);
  await host.destroy((await host.find('copy')).domid);
  const next = random(killSeed);
  let working = 0;
  for (let i = 0; i < kills; i++) {
    const run = await killOnce(t, host, image, i % 2 === 1, { pace, next }).catch((cause: unknown) => {
      throw new Error(`kill ${i} of seed ${killSeed}`, { cause });
    });
    if (run.working) working += 1;
  }
  t.diagnostic(`${working} of ${kills} kills came while it built`);
  assert.ok(working >= kills / 6, `only ${working} of ${kills} kills came while it built`);
  assert.ok(readFileSync(image).equals(bytes), 'the image is as it was');
});

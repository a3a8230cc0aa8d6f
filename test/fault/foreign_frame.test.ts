/** A page table that maps a frame which is not the guest's: no image, a named error, and the guest runs on. */
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { ImageReader } from '../../src/image/reader.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { command, failure } from '../support/command.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { Undisturbed } from '../support/interrupt.js';

const writable = 0x67n;
const onHost = ['--host', 'embedded:test'];

interface FreeSlot {
  readonly pfn: number;
  readonly level: number;
  readonly index: number;
}

/** For each level a table of the guest with an entry that maps nothing, outside Xen's own slots. */
async function freeSlots(image: string): Promise<FreeSlot[]> {
  const reader = await ImageReader.open(image, { lanes: 1 });
  try {
    return [1, 2, 3, 4].map((level) => {
      for (const { pfn } of reader.tables().filter((table) => table.level === level)) {
        const page = reader.readPages([pfn]);
        for (let index = 511; index > 271; index--)
          if (page.readBigUInt64LE(index * 8) === 0n) return { pfn, level, index };
      }
      return assert.fail(`no table of level ${level} has a free entry`);
    });
  } finally {
    reader.close();
  }
}

/** Frame of the top-level table of another guest: its vCPU's cr3. */
async function frameOfAnother(host: EmbeddedHost): Promise<bigint> {
  const domid = await host.create(guestSpec('other'), { paused: true });
  const { vcpus } = await host.readState(domid);
  const cr3 = vcpus[0]?.basic.readBigUInt64LE(4984 + 24) ?? 0n;
  assert.notEqual(cr3 >> 12n, 0n);
  return cr3 >> 12n;
}

async function assertRefused(
  t: TestContext,
  host: EmbeddedHost,
  dir: string,
  slot: FreeSlot,
  verb: readonly string[],
): Promise<void> {
  const before = await Undisturbed.note(host, dir);
  const { domid } = await host.find('guest');
  const exitCode = verb.includes('checkpoint') && !verb.includes('cooperative') ? 1 : 20;
  const line = [...verb, 'guest', join(dir, 'new.dmi'), ...onHost];
  const error = await failure(t, 'PAGE_TABLE_INVALID', exitCode, line);
  const what = `${verb.join(' ')}, level ${slot.level}: ${error.message}`;
  assert.equal(error.guest, exitCode === 20 ? 'resumed' : 'untouched', what);
  assert.equal(error.place?.pfn, slot.pfn, what);
  assert.match(error.message, new RegExp(`level ${slot.level}\\b`, 'u'), what);
  assert.match(error.message, new RegExp(`entry ${slot.index}\\b`, 'u'), what);
  assert.deepEqual(readdirSync(dir), [], what);
  await before.assertHost(5000);
  const { paused, shutdown } = await host.find('guest');
  assert.deepEqual([paused, shutdown], [false, null], what);
  const from = (await host.progress(domid)).counters[0] ?? 0;
  await until('the guest runs on', 1000, async () => ((await host.progress(domid)).counters[0] ?? 0) > from);
}

test('a foreign frame in a page table of each level', async (t) => {
  const host = await startTestHost(t);
  t.after(closeWorkers);
  const dir = tempDir(t);
  const image = join(dir, 'new.dmi');
  const domid = await host.create(guestSpec('guest'), { paused: false });
  const foreign = await frameOfAnother(host);
  const beyond = BigInt((await host.status()).memoryBytes / 4096 + 5);
  await checkpoint(host, 'guest', image, { mode: 'light' });
  const slots = await freeSlots(image);
  rmSync(image);
  const verbs = [
    ['checkpoint'],
    ['save'],
    ['checkpoint', '--mode', 'cooperative'],
    ['save', '-c'],
    ['save', '-p'],
  ];
  let turn = 0;
  for (const frame of [foreign, beyond])
    for (const slot of slots) {
      await host.poke(domid, slot.pfn, slot.index, (frame << 12n) | writable);
      await assertRefused(t, host, dir, slot, verbs[turn++ % verbs.length] ?? ['save']);
      await host.poke(domid, slot.pfn, slot.index, 0n);
    }
  const { exitCode, stderr } = await command(t, 'save', '-c', 'guest', image, ...onHost);
  assert.equal(exitCode, 0, `without the foreign frame it is saved: ${stderr}`);
});

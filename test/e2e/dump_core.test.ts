/** `dump-core` on an embedded host: what is in the file, told by a reader of its own and by readelf, and what is left. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { dumpCore } from '../../src/dump/dump_core.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { steps } from '../../src/worker/steps.js';
import { documentOf, startCommand } from '../support/command.js';
import { CoreDump } from '../support/elf_core.js';
import { guestSpec, startTestHost, until } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const words = (bytes: Buffer): bigint[] =>
  Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readBigUInt64LE(i * 8));

async function assertPages(host: EmbeddedHost, domid: number, core: CoreDump): Promise<number> {
  const { nrPfns } = await host.geometry(domid);
  const memory = await host.openMemory(domid);
  const table = words(core.read('.xen_p2m'));
  let page = 0;
  for (let pfn = 0; pfn < nrPfns; pfn++) {
    const [entry = 0n] = steps().queryPages(memory.handle, pfn, 1);
    if (entry >> 60n >= 0xdn) continue;
    assert.deepEqual(table.slice(page * 2, page * 2 + 2), [BigInt(pfn), BigInt.asUintN(52, entry)]);
    const expected = steps().readPages(memory.handle, BigUint64Array.of(BigInt(pfn)));
    assert.ok(core.read('.xen_pages', page * 4096, 4096).equals(expected), `pfn ${pfn}`);
    page++;
  }
  memory.close();
  assert.deepEqual([table.length, core.section('.xen_pages').bytes], [page * 2, page * 4096]);
  return page;
}

test('a dump of a paused guest holds its pages, frames and registers as they are', async (t) => {
  const [host, dir] = [await startTestHost(t), tempDir(t)];
  const spec = guestSpec('still', { program: 'churner', rate: 2000 }, { vcpus: 2 });
  const domid = await host.create(spec, { paused: false });
  await until('it worked', 10_000, async () => (await host.progress(domid)).steps.every((n) => n > 200));
  await host.pause(domid);
  const path = join(dir, 'still.core');
  const result = await dumpCore(host, 'still', path);
  assert.deepEqual([result.vcpus, result.pauseMs], [2, null]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const core = new CoreDump(path);
  t.after(() => core.close());
  const names = ['', '.shstrtab', '.note.Xen', '.xen_prstatus', '.xen_shared_info', '.xen_pages', '.xen_p2m'];
  assert.deepEqual(
    core.sections.map(({ name }) => name),
    names,
  );
  assert.equal(core.section('.xen_pages').offset % 4096, 0);
  assert.equal(await assertPages(host, domid, core), result.pages);
  const { vcpus, sharedInfo } = await host.readState(domid);
  assert.ok(core.read('.xen_prstatus').equals(Buffer.concat(vcpus.map(({ basic }) => basic))));
  assert.ok(core.read('.xen_shared_info').equals(sharedInfo));
  const notes = core.notes();
  assert.deepEqual(
    notes.map(({ name, type }) => [name, type]),
    [0, 1, 2, 3].map((i) => ['Xen', 0x200_0000 + i]),
  );
  assert.deepEqual(words(notes[1]?.body ?? Buffer.alloc(0)), [0xf00febedn, 2n, BigInt(result.pages), 4096n]);
  assert.deepEqual(words(notes[3]?.body ?? Buffer.alloc(0)), [1n]);
  assert.equal((await host.find('still')).paused, true);
  const read = execFileSync('readelf', ['--wide', '-h', '-S', '-n', path], { encoding: 'utf8' });
  assert.match(read, /Type: +CORE/);
  for (const name of names) assert.ok(read.includes(name), read);
});

test('a running guest and one that crashed are dumped, and are afterwards as they were', async (t) => {
  const [host, dir] = [await startTestHost(t), tempDir(t)];
  const domid = await host.create(guestSpec('busy'), { paused: false });
  await host.create(guestSpec('sad', { program: 'crasher', crashAt: 10 }), { paused: false });
  await until('it crashed', 10_000, async () => (await host.find('sad')).shutdown === 'crash');
  const options = ['--host', 'embedded:test'];
  const busy = await documentOf(t, 'dump-core', ['busy', join(dir, 'busy'), ...options]);
  assert.ok(Number(busy.pauseMs) > 0);
  const [before] = (await host.progress(domid)).steps;
  await until('it goes on', 10_000, async () => ((await host.progress(domid)).steps[0] ?? 0) > (before ?? 0));
  const sad = await documentOf(t, 'dump-core', ['sad', join(dir, 'sad'), ...options]);
  assert.equal(sad.pauseMs, null);
  const { paused, shutdown } = await host.find('sad');
  assert.deepEqual([paused, shutdown], [false, 'crash']);
  await assert.rejects(dumpCore(host, 'busy', join(dir, 'busy')), {
    code: 'OUTPUT_EXISTS',
    guest: 'untouched',
  });
  await assert.rejects(dumpCore(host, 'nobody', join(dir, 'x')), { code: 'DOMAIN_NOT_FOUND' });
  const cancelled = AbortSignal.abort();
  await assert.rejects(dumpCore(host, 'busy', join(dir, 'x'), { signal: cancelled }), { code: 'CANCELLED' });
  assert.equal((await host.find('busy')).paused, false);
  assert.deepEqual(readdirSync(dir).sort(), ['busy', 'sad']);
});

test('killed in the middle it leaves no file, and the guest runs', async (t) => {
  const [host, dir] = [await startTestHost(t, { memoryMib: 512 }), tempDir(t)];
  await host.create(guestSpec('big', { program: 'counter', rate: 2000 }, { memoryMib: 384 }), {
    paused: false,
  });
  const dump = startCommand(t, ['--host', 'embedded:test', 'dump-core', 'big', join(dir, 'core')]);
  await until('it is paused', 20_000, async () => (await host.find('big')).paused);
  assert.ok(dump.kill('SIGKILL'));
  assert.equal((await dump.ended).signal, 'SIGKILL');
  await until('it runs', 5000, async () => !(await host.find('big')).paused);
  assert.deepEqual(readdirSync(dir), []);
});

/** A small image that nobody signed and that would have a vast domain made of it, or one with vast limits. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { checkImage } from '../../src/restore/check.js';
import { fillDomain, ProgressOfRestore } from '../../src/restore/fill.js';
import { admittedPfns } from '../../src/restore/proportion.js';
import { ImageReader } from '../../src/image/reader.js';
import type { Manifest } from '../../src/image/manifest.js';
import { mostPfnsFor } from '../../src/pfn/proportion.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { failure } from '../support/command.js';
import { forgeManifest } from '../support/forge_manifest.js';
import { startTestHost } from '../support/hosts.js';
import { pvhDomain, tempDir, writeImage } from '../support/images.js';
import { grown, twoPages } from '../support/vast_image.js';

const host = ['--host', 'embedded:test'];
type Domain = Manifest['domain'];

async function smallImage(t: TestContext, domain: Partial<Domain> = {}) {
  t.after(closeWorkers);
  const [machine, path] = [await startTestHost(t), join(tempDir(t), 'image')];
  await writeImage(path, 2, [twoPages], { lanes: 1 }, { domain: { ...pvhDomain, ...domain } });
  const found = async (): Promise<string[]> =>
    (await checkImage(machine, path)).findings.flatMap(({ code, details }) =>
      code === 'CONFIG_UNTRUSTED' ? details : [],
    );
  return { machine, path, bytes: readFileSync(path), found };
}

test('the pfn space of an unsigned image is held against its pages before a domain is made', async (t) => {
  const { machine, path, bytes, found } = await smallImage(t);
  // The hole below 4 GiB of a small PVH guest, and that of one that gave most of its memory back.
  for (const fits of [2, 2 ** 20 + 2 ** 15, mostPfnsFor(1)]) {
    writeFileSync(path, grown(bytes, fits, 'noFrame'));
    assert.deepEqual(await found(), [], String(fits));
  }
  for (const vast of [mostPfnsFor(1) + 1, 2 ** 32 - 1]) {
    writeFileSync(path, grown(bytes, vast, 'noFrame'));
    const wanted = [
      `geometry.nrPfns = ${vast}, for a guest with 1 pages`,
      `to restore it as it is: dormouse --host embedded:test restore --trust-config ${path}`,
    ];
    const { details } = await failure(t, 'CONFIG_UNTRUSTED', 13, ['restore', path, ...host]);
    assert.deepEqual(details, wanted);
    assert.equal((await found())[0], wanted[0]);
  }
  assert.deepEqual(await machine.list(), []);
});

test('a domain is filled from no image of more pfns than were admitted', async (t) => {
  const { machine, path, bytes } = await smallImage(t);
  writeFileSync(path, grown(bytes, mostPfnsFor(1) + 1, 'noFrame'));
  const reader = await ImageReader.open(path, { lanes: 1 });
  t.after(() => {
    reader.close();
  });
  assert.equal(admittedPfns(reader, true), 2 ** 32);
  const { lease, builder } = await machine.build({ ...pvhDomain, maxMemoryKib: 4096, name: 'vast' });
  try {
    const options = { mostPfns: admittedPfns(reader, false) };
    const filled = fillDomain(builder, reader, options, new ProgressOfRestore(reader, {}));
    await assert.rejects(filled, { code: 'CONFIG_UNTRUSTED' });
  } finally {
    await lease.release();
  }
});

test("memory and vCPUs that stand in the manifest are judged as libxl's configuration is", async (t) => {
  const { path, found } = await smallImage(t, { config: '' });
  const given = async (domain: Partial<Domain>): Promise<string[]> => {
    forgeManifest(path, (manifest) => ({ ...manifest, domain: { ...manifest.domain, ...domain } }));
    return (await found()).filter((line) => line.startsWith('b_info.'));
  };
  assert.deepEqual(await given({ maxMemoryKib: 2 ** 20, vcpus: 128 }), []);
  assert.deepEqual(await given({ maxMemoryKib: 2 ** 52, vcpus: 8192 }), [
    'b_info.max_memkb = 4503599627370496, for a guest with 8 KiB of pages',
    'b_info.target_memkb = 4503599627370496, for a guest with 8 KiB of pages',
    'b_info.max_vcpus = 8192, for a guest with 1 vCPUs',
  ]);
  const config = JSON.stringify({
    c_info: { type: 'pvh', name: 'guest', uuid: pvhDomain.uuid },
    b_info: { max_vcpus: 1, max_memkb: 2 ** 33, target_memkb: 4096 },
  });
  assert.deepEqual(await given({ maxMemoryKib: 4096, vcpus: 1, config }), [
    'b_info.max_memkb = 8589934592, for a guest with 8 KiB of pages',
  ]);
});

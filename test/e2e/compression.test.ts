/** `--compression`: whatever was asked for, the guest goes on as if nothing had been, and the file is coded as asked. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { compressions } from '../../src/codec/compression.js';
import { digestImage } from '../../src/digest/digest.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { chunkCodecs } from '../support/chunk_codecs.js';
import { bootGuest, finalDigest, untouchedDigest, type GuestPlan } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';

const guest: GuestPlan = { program: 'writer', vcpus: 2, seed: 77, steps: 1500, rate: 3000, memoryMib: 32 };

test('a guest through images of each compression ends as an untouched one', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const host = await startTestHost(t);
  const expected = await untouchedDigest(host, guest);
  const sizes: Record<string, number> = {};
  for (const compression of compressions) {
    await bootGuest(host, compression, guest);
    await sleep(40);
    const light = join(dir, `${compression}.light.dmi`);
    const taken = await checkpoint(host, compression, light, { mode: 'light', compression });
    const next = join(dir, `${compression}.next.dmi`);
    await checkpoint(host, compression, next, { mode: 'light', compression, incrementalFrom: light });
    const path = join(dir, `${compression}.dmi`);
    const saved = await save(host, compression, path, { then: 'destroy', compression });
    for (const image of [light, next, path]) assert.deepEqual((await verifyImage(image)).findings, []);
    assert.equal(taken.compression, compression);
    assert.equal(saved.compression, compression);
    sizes[compression] = saved.storedBytes;
    const { name } = await restore(host, path, { paused: false });
    assert.equal(await finalDigest(host, name, guest), expected, compression);
    const codecs = [light, next, path].flatMap(chunkCodecs);
    assert.ok(codecs.every(({ codec, compressed }) => codec === (compressed > 0 ? 1 : 0)));
    if (compression === 'none') assert.ok(codecs.every(({ codec }) => codec === 0));
    if (compression === 'lz4') assert.ok(codecs.some(({ codec }) => codec === 1));
  }
  assert.ok((sizes.lz4 ?? 0) < (sizes.none ?? 0));
  assert.ok((sizes.auto ?? 0) <= (sizes.none ?? 0));
});

test('the same memory has the same digest, however it is stored', async (t) => {
  t.after(closeWorkers);
  const dir = tempDir(t);
  const host = await startTestHost(t);
  await bootGuest(host, 'still', guest);
  await host.pause((await host.find('still')).domid);
  const digests = new Set<string>();
  for (const compression of compressions) {
    const path = join(dir, `${compression}.dmi`);
    await checkpoint(host, 'still', path, { mode: 'light', compression });
    digests.add((await digestImage(path)).digest);
    const reader = await ImageReader.open(path, { lanes: 1 });
    // Chunks are whole pages whatever is in them, as direct I/O wants it.
    for (let chunk = 0; chunk < reader.nrChunks; chunk++) reader.checkChunk(0, chunk);
    reader.close();
  }
  assert.equal(digests.size, 1);
});

import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseArguments } from '../../src/helper/arguments.js';
import { FdSource } from '../../src/helper/fd_source.js';
import { configForXl } from '../../src/xenstream/xl_config.js';
import { decodeJob, decodeReport, encodeLine } from '../../src/host/xen/job_wire.js';

test('the arguments libxl gives', () => {
  assert.deepEqual(parseArguments('--save-domain 14 11 1 0 136 0'.split(' ')), {
    verb: 'save',
    streamFd: 14,
    domid: 1,
    live: false,
    format: 'frames',
  });
  const live = parseArguments('--stock --save-domain 14 11 1 1 136 0'.split(' '));
  assert.deepEqual(live, { verb: 'save', streamFd: 14, domid: 1, live: true, format: 'libxc' });
  assert.deepEqual(parseArguments('--restore-domain 12 -1 3 1 0 2 0 768 0'.split(' ')), {
    verb: 'restore',
    streamFd: 12,
    domid: 3,
    storePort: 1,
    storeDomid: 0,
    consolePort: 2,
    consoleDomid: 0,
  });
});

test('other arguments are refused', () => {
  const usage = { code: 'USAGE' };
  for (const words of ['', '--save-domain 1 2 3', '--restore-domain 12 -1 3 1 0 2 0 768 x', '--help'])
    assert.throws(() => parseArguments(words.split(' ')), usage, words);
  assert.throws(() => parseArguments('--save-domain 14 11 1 0 136 1'.split(' ')), {
    code: 'STREAM_UNSUPPORTED',
  });
});

test('a stream is read to the byte: what follows is somebody else’s', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'dormouse-fd-'));
  const content = Buffer.from(Array.from({ length: 6_000_000 }, (_, i) => (i * 7) & 0xff));
  writeFileSync(join(dir, 'stream'), content);
  const fd = openSync(join(dir, 'stream'), 'r');
  t.after(() => {
    closeSync(fd);
    rmSync(dir, { recursive: true });
  });
  const source = new FdSource(fd);
  assert.deepEqual(Buffer.from(await source.peek(8)), content.subarray(0, 8));
  assert.deepEqual(Buffer.from(await source.read(4, 'a')), content.subarray(0, 4));
  assert.deepEqual(Buffer.from(await source.read(20, 'b')), content.subarray(4, 24));
  await source.skip(76, 'c');
  assert.equal(source.offset, 100);
  const long = await source.read(5_000_000, 'd');
  assert.ok(long.equals(content.subarray(100, 5_000_100)));
  const next = Buffer.alloc(8);
  readSync(fd, next, 0, 8, null);
  assert.deepEqual(next, content.subarray(5_000_100, 5_000_108));
  await assert.rejects(source.read(2_000_000, 'the rest'), { code: 'STREAM_INVALID' });
});

test('a job and its reports travel as lines; anything else is refused', () => {
  const job = { nonce: '0'.repeat(64), path: '/a', imageId: 'i', root: 'r', mostPfns: 4096 };
  assert.deepEqual(decodeJob(encodeLine(job)), job);
  const failed = { kind: 'failed', code: 'NO_MEMORY', message: 'none', place: { domid: 3 } } as const;
  assert.deepEqual(decodeReport(encodeLine(failed)), failed);
  for (const line of [
    '',
    '{}',
    '{"kind":"failed","code":"NONSENSE","message":"","place":{}}',
    '{"kind":"started","domid":0}',
  ])
    assert.throws(() => decodeReport(line), { code: 'HOST_PROTOCOL' }, line);
  assert.throws(() => decodeJob('{"nonce":"00"}'), { code: 'HOST_PROTOCOL' });
});

test('a configuration that ends with a NUL, as libxl stores it, keeps its devices', () => {
  const uuid = 'e0b2e137-4b52-4e26-9d7a-ea3199174901';
  const config =
    JSON.stringify({ c_info: { type: 'pv', name: 'g', uuid }, disks: [{ vdev: 'xvda' }] }) + '\0';
  const domain = { name: 'g', uuid, type: 'pv', vcpus: 1, maxMemoryKib: 4096, config } as const;
  for (const name of ['g', 'other']) {
    const written = JSON.parse(configForXl({ ...domain, name })) as {
      c_info: { name: string };
      disks: object[];
    };
    assert.equal(written.c_info.name, name);
    assert.deepEqual(written.disks, [{ vdev: 'xvda' }]);
  }
});

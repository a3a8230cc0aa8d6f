/** HVM guests have a device model, which no image holds: they are refused before anything happens, saved or restored. */
import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { convertFromXen } from '../../src/convert/from_xen.js';
import type { DomainInfo } from '../../src/domain/state.js';
import { DormouseError } from '../../src/errors.js';
import type { Host } from '../../src/host/contract.js';
import { restore } from '../../src/restore/restore.js';
import { save } from '../../src/save/save.js';
import { closeWorkers } from '../../src/worker/pool.js';
import { command, failure } from '../support/command.js';
import { bootGuest } from '../support/guests.js';
import { startTestHost } from '../support/hosts.js';
import { tempDir } from '../support/images.js';
import { livelyPlan } from '../support/interrupt.js';
import { plainHost } from '../support/plain_host.js';
import { fileOf, hvmParts } from '../support/xen_stream.js';

/** The host, all of whose guests have a device model. */
function withDeviceModels(host: Host): Host {
  const hvm = (info: DomainInfo): DomainInfo => ({ ...info, type: 'hvm' });
  return new Proxy(host, {
    get: (_, name) => {
      if (name === 'find') return async (selector: string) => hvm(await host.find(selector));
      const own: unknown = Reflect.get(host, name, host);
      return typeof own === 'function' ? (own as (...args: unknown[]) => unknown).bind(host) : own;
    },
  });
}

const refused =
  (code: string, guest: 'untouched' | 'none' = 'untouched') =>
  (thrown: unknown) => {
    assert.ok(thrown instanceof DormouseError);
    assert.deepEqual([thrown.code, thrown.guest], [code, guest]);
    assert.match(thrown.message, /guest is an HVM guest, .*`xl \w+`.*LIBXL_SAVE_HELPER not set/);
    return true;
  };

test('no verb begins to save an HVM guest, which runs on', async (t) => {
  const [machine, dir] = [await startTestHost(t, { memoryMib: 256 }), tempDir(t)];
  t.after(closeWorkers);
  await bootGuest(machine, 'guest', { ...livelyPlan, steps: 0 });
  const acquired: string[] = [];
  const plain = plainHost(machine, {
    tracker: 'log-dirty',
    before: (operation) => {
      if (operation === 'acquire') acquired.push(operation);
    },
  });
  const image = join(dir, 'guest.dmi');
  for (const host of [withDeviceModels(machine), withDeviceModels(plain)]) {
    for (const then of ['destroy', 'resume', 'pause'] as const)
      await assert.rejects(save(host, 'guest', image, { then }), refused('HOST_LACKS'), then);
    for (const mode of ['light', 'cooperative'] as const)
      await assert.rejects(checkpoint(host, 'guest', image, { mode }), refused('HOST_LACKS'), mode);
  }
  assert.deepEqual(acquired, []);
  assert.deepEqual(readdirSync(dir), []);
  const { paused, shutdown } = await machine.find('guest');
  assert.deepEqual([paused, shutdown, (await machine.status()).leases], [false, null, []]);
});

test('neither a file of xl save nor an image becomes an HVM guest; converted it can be', async (t) => {
  const [machine, dir] = [await startTestHost(t, { memoryMib: 256 }), tempDir(t)];
  t.after(closeWorkers);
  const [xl, image] = [join(dir, 'guest.xl'), join(dir, 'guest.dmi')];
  writeFileSync(xl, fileOf(hvmParts({ kind: 'hvm' })));
  // Refused before there is need of the folder.
  const options = { paused: true, scratchDir: join(dir, 'absent') };
  await assert.rejects(restore(machine, xl, options), refused('IMAGE_INCOMPATIBLE', 'none'));
  assert.deepEqual(readdirSync(dir), ['guest.xl']);
  await convertFromXen(xl, image);
  await assert.rejects(restore(machine, image, options), refused('IMAGE_INCOMPATIBLE', 'none'));
  assert.deepEqual(await machine.list(), []);
  const host = ['--host', 'embedded:test'];
  await failure(t, 'IMAGE_INCOMPATIBLE', 13, ['restore', image, ...host]);
  assert.equal((await command(t, 'image', 'convert', image, join(dir, 'again.xl'))).exitCode, 0);
});

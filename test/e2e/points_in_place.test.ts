/** A point whose instant is none to go back to in place says so in the store, for whoever chooses one later. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainLinks, DomainState } from '../../src/domain/state.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import { PointSession } from '../../src/protect/point_session.js';
import { bootGuest } from '../support/guests.js';
import { plainHost } from '../support/plain_host.js';
import { pointStage, uuidOf } from '../support/point_stage.js';

const noBytes = Buffer.alloc(0);
const linksWith = (unfit: string): DomainLinks => ({
  ...{ unfit, start: 'boot 1', devices: '', eventArrayPfn: 0 },
  ...{ grants: noBytes, channels: noBytes, rings: noBytes },
});

test('what stands against going back to a point in place is in its record', async (t) => {
  const { host, store } = await pointStage(t);
  await bootGuest(host, 'guest', { program: 'writer', vcpus: 1, seed: 3, steps: 0, rate: 500, memoryMib: 4 });
  let unfit = '';
  const withLinks = new Proxy<EmbeddedHost>(host, {
    get: (_target, name) => {
      if (name === 'readState')
        return async (domid: number): Promise<DomainState> => ({
          ...(await host.readState(domid)),
          links: linksWith(unfit),
        });
      const own: unknown = Reflect.get(host, name, host);
      return typeof own === 'function' ? (own as (...args: never[]) => unknown).bind(host) : own;
    },
  });
  const session = await PointSession.open(plainHost(withLinks, { tracker: 'log-dirty' }), 'guest', store);
  for (const why of ['', 'a vCPU stood in an interrupt shadow', '']) {
    unfit = why;
    await session.take({ mode: 'light', reason: 'protect', disks: { kind: 'none' } });
  }
  await session.end();
  const records = await store.points(await uuidOf({ host })).list();
  assert.deepEqual(
    records.map((record) => record.unfit),
    ['', 'a vCPU stood in an interrupt shadow', ''],
  );
});

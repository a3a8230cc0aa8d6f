/** How a user names a domain, and which names no new domain gets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { selectDomain } from '../../src/domain/selector.js';
import { XenHost } from '../../src/host/xen/host.js';
import { XenLeases } from '../../src/host/xen/leases.js';
import type { XenNative } from '../../src/host/xen/native.js';
import type { XenXenstore } from '../../src/host/xen/xenstore.js';

const uuid = (last: string): string => `96aecaaf-67d6-4bc9-9e0d-f5cf0896294${last}`;
const victim = { domid: 4, name: 'victim', uuid: uuid('e') };

test('an id and a uuid are never taken for a name, and what has such a name is reached by its id', () => {
  const impostors = [
    { domid: 5, name: uuid('e'), uuid: uuid('1') },
    { domid: 6, name: uuid('E'), uuid: uuid('2') },
    { domid: 7, name: '4', uuid: uuid('3') },
  ];
  const all = [...impostors, victim];
  for (const selector of ['4', 'victim', uuid('e'), uuid('E').toUpperCase()])
    assert.equal(selectDomain(all, selector), victim, selector);
  for (const domain of impostors) assert.equal(selectDomain(all, String(domain.domid)), domain);
  assert.equal(selectDomain(impostors, uuid('e')).domid, 5, 'nobody has that uuid');
  assert.throws(() => selectDomain(impostors, '4'), { code: 'DOMAIN_NOT_FOUND' });
});

test('Xen is not asked for a domain whose name stands for another', async () => {
  // Whatever of Xen they reach for is missing.
  const none = '/nonexistent';
  const leases = new XenLeases(none, none, () => undefined);
  const host = new XenHost(
    {} as XenNative,
    '4_17',
    undefined as unknown as XenXenstore,
    leases,
    () => undefined,
  );
  for (const name of ['4', '004', uuid('e'), uuid('e').toUpperCase()]) {
    await assert.rejects(host.create({ name, xlConfig: '' }, { paused: false }), { code: 'CONFIG_INVALID' });
    const spec = { name, uuid: uuid('e'), type: 'pv', maxMemoryKib: 4, vcpus: 1, config: '' } as const;
    const image = { path: '/image', neededKib: 4, mostPfns: 1000, imageId: '', root: '' };
    await assert.rejects(host.buildFromImage(spec, image, { paused: false }), { code: 'CONFIG_INVALID' });
  }
});

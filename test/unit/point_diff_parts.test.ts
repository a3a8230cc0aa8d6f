/** Disks and links of two points, held against each other. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { diffDisks } from '../../src/diff/disk_diff.js';
import { diffLinks } from '../../src/diff/link_diff.js';
import type { KeptDisk, KeptDisks } from '../../src/disks/kept.js';
import type { DomainLinks } from '../../src/domain/state.js';

const disk = (name: string, path: string, bytes: number): KeptDisk => ({ name, path, bytes, where: 'w' });

test('of disks it is told who holds them, and as what', () => {
  const reflink = { kind: 'reflink', program: null, tookMs: 1 } as const;
  const from: KeptDisks = { ...reflink, disks: [disk('xvdb', '/b', 2), disk('xvda', '/a', 1)] };
  const to: KeptDisks = {
    ...reflink,
    kind: 'lvm-thin',
    disks: [disk('xvda', '/A', 3), disk('xvdc', '/c', 4)],
  };
  const expected = [
    {
      name: 'xvda',
      from: { path: '/a', bytes: 1, kind: 'reflink' },
      to: { path: '/A', bytes: 3, kind: 'lvm-thin' },
    },
    { name: 'xvdb', from: { path: '/b', bytes: 2, kind: 'reflink' }, to: null },
    { name: 'xvdc', from: null, to: { path: '/c', bytes: 4, kind: 'lvm-thin' } },
  ];
  assert.deepEqual(diffDisks(from, to), expected);
  const turned = expected.map(({ name, from: was, to: is }) => ({ name, from: is, to: was }));
  assert.deepEqual(diffDisks(to, from), turned);
  assert.deepEqual(diffDisks({ kind: 'none' }, { kind: 'none' }), []);
});

function ring(pfn: number, fill: number): Buffer {
  const page = Buffer.alloc(8 + 4096, fill);
  page.writeBigUInt64LE(BigInt(pfn));
  return page;
}

const device = (name: string, backend: string) => ({ name, frontend: '/f', backend });

const links: DomainLinks = {
  ...{ unfit: '', start: '7 boot', eventArrayPfn: 12 },
  grants: Buffer.from([1, 2]),
  channels: Buffer.from([0, 5, 132]),
  rings: Buffer.concat([ring(90, 1), ring(20, 2)]),
  devices: JSON.stringify([device('vbd 51712', '/b'), device('vif 0', '/n')]),
};

const same = { devices: [], ports: [], ringPfns: [], other: [] };

test('of links it is told which devices, ports and rings are others', () => {
  const fit = { from: '', to: '' };
  assert.deepEqual(diffLinks(links, { ...links }), { heldBy: 'both', unfit: fit, ...same });
  const to: DomainLinks = {
    ...{ unfit: '', start: '8 boot', eventArrayPfn: 13 },
    grants: Buffer.from([1, 3]),
    channels: Buffer.from([0, 6, 132, 1]),
    rings: Buffer.concat([ring(20, 2), ring(90, 3), ring(15, 1)]),
    devices: JSON.stringify([device('vif 0', '/m'), device('vif 1', '/n')]),
  };
  const expected = {
    ...{ heldBy: 'both', unfit: fit, devices: ['vbd 51712', 'vif 0', 'vif 1'] },
    ...{ ports: [1, 3], ringPfns: [15, 90], other: ['start', 'grants', 'eventArrayPfn'] },
  };
  assert.deepEqual(diffLinks(links, to), expected);
  assert.deepEqual(diffLinks(to, links), expected);
});

test('what one of them lacks is not told as many differences', () => {
  const none = { heldBy: 'none', unfit: { from: null, to: null }, ...same };
  assert.deepEqual(diffLinks(undefined, undefined), none);
  assert.deepEqual(diffLinks(links, undefined), { heldBy: 'from', unfit: { from: '', to: null }, ...same });
  const unfit = { ...links, unfit: 'a timer', channels: Buffer.alloc(0), devices: '' };
  assert.deepEqual(diffLinks(unfit, links), { heldBy: 'both', unfit: { from: 'a timer', to: '' }, ...same });
});

test('devices and rings of another form are compared as they are', () => {
  for (const devices of ['?', '{}', '[{"name":1}]']) {
    assert.deepEqual(diffLinks(links, { ...links, devices }).other, ['devices']);
    assert.deepEqual(diffLinks({ ...links, devices }, { ...links, devices }).other, []);
  }
  const cut = { ...links, rings: links.rings.subarray(0, -1) };
  assert.deepEqual(diffLinks(links, cut).ringPfns, [20]);
});

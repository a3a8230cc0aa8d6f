/** Services that answer as the real ones would, without a host. */
import type { CheckpointResult } from '../../src/checkpoint/checkpoint.js';
import type { Services } from '../../src/cli/services.js';
import { snapshotDowntime } from '../../src/domain/operation.js';
import type { DumpResult } from '../../src/dump/dump_core.js';
import type { HostReport } from '../../src/host/embedded/ops.js';
import type { Inspection } from '../../src/image/inspect.js';
import type { RollbackResult } from '../../src/rollback/rollback.js';
import type { VerifyReport } from '../../src/image/verify.js';
import type { Point } from '../../src/store/domain_points.js';
import { keyLine } from '../../src/trust/key_text.js';
import { services } from './cli.js';
import { domainInfo, FakeHost } from './fake_host.js';

const counts = { data: 100, zero: 20, table: 5, noFrame: 3, broken: 0, alloc: 0, sameAsParent: 0 };
const phases = { prepareMs: 2, liveMs: 0, pauseMs: 3.5, writeMs: 5, commitMs: 1.5, settleMs: 0.5 };
const downtime = snapshotDowntime(3.5);
const sizes = { counts, memoryBytes: 128 * 4096, storedBytes: 200_000, elapsedMs: 12.5 };
const imageId = '00112233445566778899aabbccddeeff';
const root = imageId + imageId;
const saved = {
  path: 'a.dmi',
  imageId,
  parent: null,
  compression: 'lz4' as const,
  domid: 1,
  name: 'web1',
  paused: false,
  standstillMs: 3.5,
  phases,
  downtime,
  ...sizes,
};

function checkpointed(path: string): CheckpointResult {
  const consistency = 'suspend-point';
  return {
    path,
    imageId,
    parent: null,
    compression: 'lz4',
    domid: 1,
    name: 'web1',
    paused: false,
    mode: 'light',
    consistency,
    pauseMs: 0.12,
    phases,
    downtime: snapshotDowntime(0.12),
    cowPages: 4,
    copiedPages: 0,
    ...sizes,
  };
}

function rolledBack(path: string): RollbackResult {
  const pages = { putPages: 3, samePages: 125 };
  const times = { pauseMs: 0.75, elapsedMs: 12.5, phases, downtime: snapshotDowntime(0.75) };
  return { path, domid: 1, name: 'web1', imageId, safety: null, paused: false, ...pages, ...times };
}

function dumped(path: string): DumpResult {
  const sizes = { vcpus: 2, pages: 128, fileBytes: 540_000, pauseMs: 4.25, elapsedMs: 12.5 };
  return { path, domid: 1, name: 'web1', ...sizes };
}

const report: HostReport = {
  name: 'default',
  pid: 77,
  version: '0.1.0',
  startedAt: '2026-01-01T00:00:00.000Z',
  memoryBytes: 2 ** 32,
  freeBytes: 2 ** 31,
  quarantinedBytes: 0,
  guests: [domainInfo()],
  leases: [{ domid: 1, operation: 'save', pid: 78 }],
  snapshots: 0,
  trackers: 0,
  connections: 1,
  capabilities: {
    'light-suspend-point': true,
    'cow-snapshot': true,
    'log-dirty': true,
    'cooperative-suspend': true,
    rewrite: true,
    create: true,
    'xl-config': 'xl-config: not written yet',
  },
};

export const verified: VerifyReport = {
  path: 'a.dmi',
  imageId,
  root,
  bytesRead: 200_000,
  chunksChecked: 2,
  blocksDecoded: 9,
  nrPfns: 128,
  ancestors: [],
  contentRootCompared: true,
  findings: [],
  more: 0,
};

const inspected: Inspection = {
  path: 'a.dmi',
  fileBytes: 200_000,
  header: {
    ...{ major: 1, minor: 0, imageId, parent: null, nrPfns: 128, consistency: 'suspend-point' },
    ...{ chainId: imageId, sequence: 0, hasPageHashes: false, hasDeltas: false, hasChunkDigests: false },
  },
  ancestors: [],
  mapKind: 'full',
  contentRoot: null,
  manifest: null,
  root,
  ...{ rootHolds: true, signerKey: null },
  committed: true,
  counts,
  chunks: { count: 2, byCodec: { lz4: 2 }, ofDeltas: 0 },
  storedPages: 125,
  memoryBytes: 125 * 4096,
  ratio: 2.62,
  damage: ['the manifest is damaged'],
};

const ownKey = { key: Buffer.alloc(32, 0), label: 'me' };
const trustedKey = { key: Buffer.alloc(32, 2), label: 'other' };
export const otherKey = trustedKey.key.toString('base64');

const point: Point = {
  version: 1,
  ...{ id: '20260101-000000.123', takenAt: '2026-01-01T00:00:00.123Z', hostKind: 'embedded', parent: null },
  domain: { uuid: '01234567-89ab-cdef-0123-456789abcdef', name: 'web1', domid: 1, type: 'pv', vcpus: 1 },
  image: {
    ...{ name: '20260101-000000.123.dmi', imageId, root, chainId: imageId, sequence: 0 },
    ...{ consistency: 'suspend-point', storedBytes: 200_000, memoryBytes: 128 * 4096, changedPages: 128 },
  },
  ...{
    reason: 'protect',
    mode: 'light',
    pauseMs: 0.12,
    elapsedMs: 12.5,
    disks: { kind: 'none' },
    unfit: '',
    pinned: true,
  },
};

/** Every service answers as a real one would. */
export function working(): Services {
  return services(new FakeHost([domainInfo(), domainInfo({ domid: 2, name: 'sad', shutdown: 'crash' })]), {
    startHost: () => Promise.resolve(true),
    stopHost: () => Promise.resolve(false),
    hostStatus: () => Promise.resolve({ state: 'running', report }),
    save: () => Promise.resolve(saved),
    restore: () =>
      Promise.resolve({ domid: 3, name: 'web1', from: 'dormouse', imageId, notes: [], phases, ...sizes }),
    restorePoint: () =>
      Promise.resolve({
        ...{ path: 'p.dmi', point: point.id, domid: 3, name: 'web1', from: 'dormouse', imageId, notes: [] },
        disks: ['/srv/web1.xvda.raw'],
        ...{ phases, ...sizes },
      }),
    checkImage: (_host, path) =>
      Promise.resolve({
        ...{ path, from: 'dormouse', imageId, name: 'web1', signer: 'unsigned' },
        findings: [{ code: 'NO_MEMORY', message: 'none', details: ['a line'] }],
      }),
    signerState: () => Promise.resolve('unsigned'),
    keys: {
      list: () => Promise.resolve({ folder: '/keys', own: ownKey, trusted: [trustedKey] }),
      show: () => Promise.resolve({ ...ownKey, line: keyLine(ownKey) }),
      trust: () => Promise.resolve({ added: true, known: trustedKey }),
      forget: () => Promise.resolve(trustedKey),
    },
    checkpoint: (_host, _selector, path) => Promise.resolve(checkpointed(path)),
    rollback: (_host, _selector, path) => Promise.resolve(rolledBack(path)),
    rollbackToPoint: () =>
      Promise.resolve({
        ...rolledBack('p.dmi'),
        point: point.id,
        disks: ['xvda'],
        safetyPoint: '20260101-000001.000',
      }),
    bisect: (_host, _selector, _store, { onTrial, leave }) => {
      const trials = [
        { point: point.id, verdict: 'good' as const, exitCode: 0, why: null, elapsedMs: 12.5 },
        { point: '20260101-000003.000', verdict: 'bad' as const, exitCode: 1, why: null, elapsedMs: 12.5 },
        { point: '20260101-000002.000', verdict: 'skip' as const, exitCode: null, why: 'gone', elapsedMs: 2 },
      ];
      for (const trial of trials) onTrial?.(trial, { suspects: 2, trials: 1 });
      const suspects = trials.slice(1).map((trial) => trial.point);
      return Promise.resolve({
        ...{ domid: 1, name: 'web1', lastGood: point.id, firstBad: null, suspects, points: 3, trials },
        ...{ safetyPoint: '20260101-000004.000', left: leave, paused: false, elapsedMs: 40 },
      });
    },
    protect: (_host, _selector, _store, { onPoint }) => {
      onPoint?.({ record: point, path: 'p.dmi', copiedPages: 0 }, false);
      const figures = { points: 3, skipped: 1, failed: 2, storedBytes: 200_000, longestPauseMs: 0.12 };
      return Promise.resolve({ domid: 1, name: 'web1', ...figures, elapsedMs: 3000, ended: 'count' });
    },
    listPoints: () => Promise.resolve([{ point, path: 'p.dmi' }]),
    prunePoints: () =>
      Promise.resolve({
        ...{ forgotten: ['20250101-000000.000'], kept: [{ id: point.id, by: ['last'] }] },
        ...{
          removed: ['20250101-000000.000.dmi'],
          freedBytes: 4096,
          removedDisks: ['20250101-000000.000.xvda.raw'],
          stuck: ['odd'],
        },
      }),
    pinPoint: () => Promise.resolve({ point: point.id, changed: true }),
    verifyPoints: () =>
      Promise.resolve({
        points: 2,
        images: 2,
        disks: 1,
        findings: [{ point: point.id, image: null, what: 'gone' }],
      }),
    diffPoints: () =>
      Promise.resolve({
        ...{ name: 'web1', from: '20251231-000000.000', to: point.id, nrPfns: 128, differingPages: 3 },
        pages: [
          { from: 'data', to: 'data', count: 2, runs: [[3, 2]] },
          { from: 'zero', to: 'table', count: 1, runs: [[9, 1]] },
        ],
        vcpus: [
          {
            vcpu: 0,
            online: 'both',
            registers: [{ name: 'rip', from: '0x01', to: '0x02' }],
            other: ['xsave'],
          },
          { vcpu: 1, online: 'to', registers: [], other: [] },
        ],
        ...{ state: ['sharedInfo'], elapsedMs: 12.5 },
        links: {
          ...{ heldBy: 'both', unfit: { from: '', to: '' }, other: ['grants'] },
          ...{ devices: ['vbd 51712'], ports: [3, 4], ringPfns: [77] },
        },
        disks: [
          {
            name: 'xvda',
            from: { path: '/a', bytes: 4096, kind: 'reflink' },
            to: { path: '/b', bytes: 4097, kind: 'reflink' },
          },
          { name: 'xvdb', from: null, to: { path: '/c', bytes: 8192, kind: 'reflink' } },
        ],
      }),
    exportPoint: (_store, _domain, _point, path, { as }) =>
      Promise.resolve({
        ...{ point: point.id, path, as, name: 'web1', imageId: as === 'image' ? imageId : null },
        ...{ counts, memoryBytes: 128 * 4096, fileBytes: 540_000, elapsedMs: 12.5, notes: ['a note'] },
      }),
    flattenPoint: () =>
      Promise.resolve({
        ...{ point: point.id, flattened: true, path: 's/a.dmi', fileBytes: 540_000, sharedBytes: 500_000 },
        ...{ unneededImages: 2, unneededBytes: 80_000, elapsedMs: 12.5 },
      }),
    dumpCore: (_host, _selector, path) => Promise.resolve(dumped(path)),
    digestDomain: () => Promise.resolve({ digest: 'ab12', pages: 128, vcpus: 2 }),
    digestImage: () => Promise.resolve({ digest: 'ab12', pages: 128, vcpus: 2 }),
    inspectImage: () => Promise.resolve(inspected),
    verifyImage: () => Promise.resolve(verified),
    detectFormat: (path) => Promise.resolve(path.endsWith('.xl') ? 'xl' : 'dormouse'),
    convertFromXen: (_in, path) =>
      Promise.resolve({
        ...{ path, descriptor: null, imageId, root, name: 'web1', type: 'pv', notes: ['a note'] },
        ...sizes,
      }),
    demo: () =>
      Promise.resolve({
        identical: true,
        digest: 'ab12',
        checkpoints: 20,
        rows: [{ what: 'save', measured: '1.00 GB/s', limit: '2.00 GB/s' }],
        elapsedMs: 1000,
        table: 'save  1.00 GB/s\n',
      }),
  });
}

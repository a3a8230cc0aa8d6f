/** What the embedded host does for each operation of ops.ts. Everything here is short and synchronous but suspend. */
import { native } from '../../addon.js';
import { DormouseError } from '../../errors.js';
import type { Capabilities } from '../contract.js';
import { hasDevices } from './devices.js';
import type { Domain, Domains } from './domains.js';
import type { HypervisorApi, MachineId, NativePart } from './hypervisor.js';
import type { HeldLease, Leases } from './leases.js';
import { type HostReport, type OpArgs, packNumbers, unpackNumbers } from './ops.js';
import type { Handlers, Session } from './session.js';
import type { XenstoreTree } from './xenstore.js';

export interface HostParts {
  readonly hv: HypervisorApi;
  readonly machine: MachineId;
  readonly domains: Domains;
  readonly leases: Leases;
  readonly xenstore: XenstoreTree;
  readonly report: () => HostReport;
  /** Ends the process once the reply to the request that asked for it is out. */
  readonly stop: () => void;
}

export const capabilities: Capabilities = {
  'light-suspend-point': true,
  'cow-snapshot': true,
  'log-dirty': true,
  'cooperative-suspend': true,
  rewrite: true,
  create: true,
  'xl-config': 'xl-config: the embedded host boots guest programs, no kernels',
};

type Subset<N extends keyof Handlers> = Pick<Handlers, N>;

export function makeHandlers(parts: HostParts): Handlers {
  return {
    ...hostHandlers(parts),
    ...domainHandlers(parts),
    ...diskHandlers(parts),
    ...leaseHandlers(parts),
    ...snapshotHandlers(parts),
    ...buildHandlers(parts),
    ...xenstoreHandlers(parts),
    ...watchHandlers(parts),
  };
}

function hostHandlers({
  report,
  stop,
  domains,
}: HostParts): Subset<'hello' | 'status' | 'stop' | 'capabilities'> {
  return {
    hello: () => ({ pid: process.pid }),
    status: () => report(),
    stop: ({ force }) => {
      const names = domains.all().map(({ spec }) => spec.name);
      if (names.length > 0 && !force)
        throw new DormouseError('DOMAIN_WRONG_STATE', `the host has guests: ${names.join(', ')}`);
      stop();
      return null;
    },
    capabilities: () => capabilities,
  };
}

type DomainOps =
  | 'list'
  | 'info'
  | 'find'
  | 'config'
  | 'create'
  | 'pause'
  | 'unpause'
  | 'destroy'
  | 'geometry'
  | 'layout'
  | 'readState'
  | 'progress'
  | 'poke'
  | 'balloon'
  | 'setUnlogged';

function domainHandlers({ hv, machine, domains, leases }: HostParts): Subset<DomainOps> {
  const on = (act: (domain: Domain) => void) => (args: { domid: number }) => {
    act(domains.get(args.domid));
    return null;
  };
  return {
    list: () => domains.all().map((domain) => domains.info(domain)),
    info: ({ domid }) => domains.info(domains.get(domid)),
    find: ({ selector }) => domains.info(domains.find(selector)),
    config: ({ domid }) => domains.get(domid).spec.config,
    create: ({ spec, paused }) => domains.create(spec, paused),
    pause: on((domain) => domains.pause(domain)),
    unpause: on((domain) => domains.unpause(domain)),
    destroy: ({ domid }, session) => {
      const domain = domains.get(domid);
      leases.requireFree(domain, session);
      domains.destroy(domain);
      leases.domainGone(domain);
      return null;
    },
    geometry: ({ domid }) => native(() => hv.geometry(machine, domains.get(domid).domid)),
    layout: ({ domid }) => ({
      machine: native(() => hv.machineLayout(machine)),
      domain: native(() => hv.domainLayout(machine, domains.get(domid).domid)),
    }),
    readState: ({ domid }) => domains.readState(domains.get(domid)),
    progress: ({ domid }) => native(() => hv.progress(machine, domains.get(domid).domid)),
    poke: ({ domid, pfn, index, entry }) => {
      domains.requirePfns(domains.get(domid), [pfn]);
      native(() => hv.poke(machine, domid, pfn, index, BigInt.asUintN(64, BigInt(entry))));
      return null;
    },
    balloon: ({ domid, first, count, up }) => {
      domains.requirePfns(domains.get(domid), [first + count - 1]);
      native(() => hv.balloon(machine, domid, first, count, up));
      return null;
    },
    setUnlogged: ({ domid, ...what }) => {
      native(() => hv.setUnlogged(machine, domains.get(domid).domid, what));
      return null;
    },
  };
}

type DiskOps = 'disks' | 'sharedDisks' | 'diskObstacles' | 'setBackend';

function diskHandlers({ domains }: HostParts): Subset<DiskOps> {
  return {
    disks: ({ domid }) =>
      domains.get(domid).disks.map(({ name, path, kind, writable }) => ({ name, path, kind, writable })),
    sharedDisks: ({ domid }) => domains.diskObstacles(domains.get(domid).spec.config, domid),
    diskObstacles: ({ config }) => domains.diskObstacles(config),
    setBackend: ({ domid, index, ...how }) => {
      const { disks, networks } = domains.get(domid);
      if (index >= disks.length + networks.length)
        throw new DormouseError('DOMAIN_WRONG_STATE', `domain ${domid} has no device ${index}`);
      domains.devices.behave(domid, index, how);
      return null;
    },
  };
}

type LeaseOps =
  'acquire' | 'release' | 'suspend' | 'resumeInPlace' | 'noteEnding' | 'holdPaused' | 'releasePaused';

function leaseHandlers({ domains, leases }: HostParts): Subset<LeaseOps> {
  const on = (act: (lease: HeldLease) => void) => (args: { lease: number }, session: Session) => {
    act(leases.get(args.lease, session));
    return null;
  };
  return {
    acquire: ({ domid, operation }, session) => leases.acquire(domains.get(domid), operation, session).id,
    release: on((lease) => leases.release(lease)),
    suspend: async ({ lease, timeoutMs }, session) => {
      await leases.suspend(leases.get(lease, session), timeoutMs);
      return null;
    },
    resumeInPlace: on((lease) => leases.resume(lease)),
    noteEnding: ({ lease, ending }, session) => {
      leases.noteEnding(leases.get(lease, session), ending);
      return null;
    },
    holdPaused: on((lease) => leases.holdPaused(lease)),
    releasePaused: on((lease) => leases.releasePaused(lease)),
  };
}

type SnapshotOps = 'snapshot' | 'cowPages' | 'releaseSnapshot' | 'trackerOn' | 'trackerRead' | 'trackerOff';

function snapshotHandlers({ hv, machine, domains, leases }: HostParts): Subset<SnapshotOps> {
  return {
    snapshot: ({ lease }, session) => {
      const held = leases.get(lease, session);
      const { epoch, pauseNs, dirty, geometry, vcpus, sharedInfo } = leases.snapshot(held);
      return { epoch, pauseNs, dirty, geometry, state: domains.joinState(held.domain, vcpus, sharedInfo) };
    },
    cowPages: ({ lease }, session) =>
      native(() => hv.cowPages(machine, leases.get(lease, session).domain.domid)),
    releaseSnapshot: ({ lease, epoch }, session) => {
      leases.dropSnapshot(leases.get(lease, session), epoch);
      return null;
    },
    trackerOn: ({ lease }, session) => {
      leases.trackerOn(leases.get(lease, session));
      return null;
    },
    trackerRead: ({ lease, clear }, session) => {
      const { domid } = leases.get(lease, session).domain;
      return native(() =>
        clear ? hv.logDirtyReadAndClear(machine, domid) : hv.logDirtyPeek(machine, domid),
      );
    },
    trackerOff: ({ lease }, session) => {
      leases.trackerOff(leases.get(lease, session));
      return null;
    },
  };
}

type BuildOps =
  | 'build'
  | 'rewrite'
  | 'completeRewrite'
  | 'setGeometry'
  | 'populate'
  | 'frames'
  | 'sharedInfoFrame'
  | 'connectRings'
  | 'pin'
  | 'setState'
  | 'finish';

function buildHandlers({ hv, machine, domains, leases }: HostParts): Subset<BuildOps> {
  const builder = (lease: number, session: Session) => leases.builder(lease, session).domain;
  return {
    build: ({ spec }, session) => {
      const domain = domains.shell(spec);
      return { lease: leases.acquire(domain, 'restore', session, true).id, domid: domain.domid };
    },
    rewrite: async ({ lease, part, rings }, session) => {
      const held = leases.get(lease, session);
      const { domain } = held;
      if (hasDevices(domain)) await leases.detachDevices(held);
      leases.beginRewrite(leases.get(lease, session), part && unpacked(part));
      return {
        sharedInfoFrame: native(() => hv.sharedInfoFrame(machine, domain.domid)),
        ports: rings && domains.connectRings(domain, rings.storePfn, rings.consolePfn),
      };
    },
    completeRewrite: ({ lease, pins, state, release }, session) => {
      const held = leases.builder(lease, session);
      domains.completeRewrite(held.domain, pins, state);
      if (release) leases.releasePaused(held);
      return null;
    },
    setGeometry: ({ lease, geometry }, session) => {
      domains.setGeometry(builder(lease, session), geometry);
      return null;
    },
    populate: ({ lease, runs }, session) => {
      const domain = builder(lease, session);
      const pairs = pairsOf(unpackNumbers(runs));
      domains.requirePfns(
        domain,
        pairs.map(([first, count]) => first + count - 1),
      );
      native(() => hv.populate(machine, domain.domid, pairs));
      return null;
    },
    frames: ({ lease, pfns }, session) => {
      const domain = builder(lease, session);
      const list = unpackNumbers(pfns);
      domains.requirePfns(domain, list);
      return packNumbers(native(() => hv.frames(machine, domain.domid, list)).map((mfn) => mfn ?? -1));
    },
    sharedInfoFrame: ({ lease }, session) =>
      native(() => hv.sharedInfoFrame(machine, builder(lease, session).domid)),
    connectRings: ({ lease, storePfn, consolePfn }, session) =>
      domains.connectRings(builder(lease, session), storePfn, consolePfn),
    pin: ({ lease, tables }, session) => {
      const domain = builder(lease, session);
      domains.requirePfns(
        domain,
        tables.map(({ pfn }) => pfn),
      );
      native(() => hv.pin(machine, domain.domid, tables));
      return null;
    },
    setState: ({ lease, state }, session) => {
      domains.setState(builder(lease, session), state);
      return null;
    },
    finish: ({ lease }, session) => {
      domains.finish(builder(lease, session));
      return null;
    },
  };
}

function unpacked({
  geometry: { ...geometry },
  p2mFrames,
  ...lists
}: NonNullable<OpArgs<'rewrite'>['part']>): NativePart {
  const [gained, lost] = [lists.gained, lists.lost].map((runs) => pairsOf(unpackNumbers(runs)));
  const [tables, unpinned] = [lists.tables, lists.unpinned].map((pfns) => unpackNumbers(pfns));
  return {
    geometry: { ...geometry, p2mFrames: unpackNumbers(p2mFrames) },
    ...{ gained: gained ?? [], lost: lost ?? [], tables: tables ?? [], unpinned: unpinned ?? [] },
  };
}

function pairsOf(flat: readonly number[]): [number, number][] {
  const pairs: [number, number][] = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i] ?? 0, flat[i + 1] ?? 0]);
  if (pairs.some(([, count]) => count === 0))
    throw new DormouseError('HOST_PROTOCOL', 'a run is empty or cut short');
  return pairs;
}

/** The transaction to act in, which must be the session's own. */
function own(session: Session, transaction: number | null): number | undefined {
  if (transaction === null) return undefined;
  if (session.transactions.has(transaction)) return transaction;
  throw new DormouseError('USAGE', `no xenstore transaction ${transaction}`);
}

type XenstoreOps = 'xsRead' | 'xsWrite' | 'xsList' | 'xsRemove' | 'xsBegin' | 'xsEnd';

function xenstoreHandlers({ xenstore }: HostParts): Subset<XenstoreOps> {
  return {
    xsRead: ({ path, transaction }, session) => xenstore.read(path, own(session, transaction)),
    xsWrite: ({ path, value, transaction }, session) => {
      xenstore.write(path, value, own(session, transaction));
      return null;
    },
    xsList: ({ path, transaction }, session) => xenstore.list(path, own(session, transaction)),
    xsRemove: ({ path, transaction }, session) => {
      xenstore.remove(path, own(session, transaction));
      return null;
    },
    xsBegin: (_args, session) => {
      session.requireRoom();
      const transaction = xenstore.begin();
      session.transactions.add(transaction);
      return transaction;
    },
    xsEnd: ({ transaction, commit }, session) => {
      own(session, transaction);
      session.transactions.delete(transaction);
      return xenstore.end(transaction, commit);
    },
  };
}

function watchHandlers({ xenstore }: HostParts): Subset<'xsWatch' | 'xsUnwatch'> {
  return {
    xsWatch: ({ watch, path }, session) => {
      session.requireRoom();
      if (session.watches.has(watch)) throw new DormouseError('USAGE', `watch ${watch} is in use`);
      const fire = (changed: string) => session.event({ kind: 'watch', watch, path: changed });
      session.watches.set(watch, xenstore.watch(path, fire));
      return null;
    },
    xsUnwatch: ({ watch }, session) => {
      session.watches.get(watch)?.();
      session.watches.delete(watch);
      return null;
    },
  };
}

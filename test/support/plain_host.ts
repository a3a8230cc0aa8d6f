/**
 * An embedded host with less to offer: no copy-on-write snapshots, if wanted no dirty log, and if wanted a view of its
 * domains and a dirty log such as Xen has.
 */
import { DormouseError } from '../../src/errors.js';
import { captureByCalls } from '../../src/host/capture_by_calls.js';
import type { Capabilities, Host, Lease, StoppedCapture } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import type { Unlogged } from '../../src/host/embedded/hypervisor.js';
import type { DomainInfo } from '../../src/domain/state.js';

export type TrackerKind = 'log-dirty' | 'content';

type Method = (...args: never[]) => unknown;

export interface PlainHostOptions {
  readonly tracker: TrackerKind;
  /**
   * As Xen: memory is seen through what the xen host keeps of it (its own p2m, holes that are remembered), and the log
   * names only what Xen's names. `pvh` shows a PV guest as one whose page tables are not Xen's business.
   */
  readonly asXen?: 'pv' | 'pvh';
  /** What the log leaves out, if it is not to be what Xen's leaves out for `asXen`. */
  readonly unlogged?: Unlogged;
  /**
   * Called before each operation of the host with its name; what it throws the operation throws. Where it returns a
   * promise the operation waits for it, and so comes after what is asked of the host meanwhile.
   */
  readonly before?: (operation: keyof Host) => Promise<void> | void;
}

const lacks = 'hidden by the test';

/** xen/arch/x86/mm: a translated domain's p2m logs a frame that comes; of a PV domain only types are. */
const xenUnlogged = {
  pv: { gained: true, lost: true, retyped: false, granted: true },
  pvh: { gained: false, lost: true, retyped: true, granted: true },
} as const;

function hide(real: Capabilities, tracker: TrackerKind): Capabilities {
  return {
    ...real,
    'light-suspend-point': lacks,
    'cow-snapshot': lacks,
    ...(tracker === 'content' && { 'log-dirty': lacks }),
  };
}

type Shown = Pick<Host, 'openMemory' | 'tracker'> & Partial<Pick<Host, 'list' | 'find' | 'geometry'>>;

function shownAsXen(host: EmbeddedHost, kind: 'pv' | 'pvh', hidden: Unlogged): Shown {
  const shown = (info: DomainInfo): DomainInfo => ({ ...info, type: kind });
  return {
    openMemory: (domid) => host.openMemoryAsXen(domid, kind === 'pvh'),
    tracker: async (lease: Lease) => {
      await host.setUnlogged(lease.domid, hidden);
      return host.tracker(lease);
    },
    ...(kind === 'pvh' && {
      list: async () => (await host.list()).map(shown),
      find: async (selector: string) => shown(await host.find(selector)),
      geometry: async (domid: number) => ({
        ...(await host.geometry(domid)),
        guestWidth: 0 as const,
        p2mFrames: [],
        p2mGeneration: 0,
      }),
    }),
  };
}

/** The host behind a face of its own; everything that is not hidden goes through. */
export function plainHost(host: EmbeddedHost, { tracker, before, asXen, unlogged }: PlainHostOptions): Host {
  const refuse = (): Promise<never> => Promise.reject(new DormouseError('HOST_LACKS', lacks));
  const instead: Partial<Record<string | symbol, Method>> = {
    ...(asXen && shownAsXen(host, asXen, unlogged ?? xenUnlogged[asXen])),
    capabilities: async () => hide(await host.capabilities(), tracker),
    snapshot: refuse,
    ...(tracker === 'content' && { tracker: refuse }),
  };
  const plain = new Proxy<Host>(host, {
    get: (_, name) => {
      const own: unknown = instead[name] ?? Reflect.get(host, name, host);
      if (typeof own !== 'function') return own;
      const method = (own as Method).bind(host) as (...args: unknown[]) => unknown;
      if (before === undefined || name === 'onEvent') return method;
      // Called at once where there is nothing to wait for, as the host itself would be.
      return async (...args: unknown[]) => {
        const waited = before(name as keyof Host);
        if (waited) await waited;
        return method(...args);
      };
    },
  });
  // Of the calls that are seen here.
  instead.captureStopped = (lease: Lease, capture: StoppedCapture) => captureByCalls(plain, lease, capture);
  return plain;
}

/** An embedded host with less to offer: no copy-on-write snapshots and, if wanted, no dirty log. */
import { DormouseError } from '../../src/errors.js';
import type { Capabilities, Host } from '../../src/host/contract.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';

export type TrackerKind = 'log-dirty' | 'content';

type Method = (...args: never[]) => unknown;

export interface PlainHostOptions {
  readonly tracker: TrackerKind;
  /**
   * Called before each operation of the host with its name; what it throws the operation throws. Where it returns a
   * promise the operation waits for it, and so comes after what is asked of the host meanwhile.
   */
  readonly before?: (operation: keyof Host) => Promise<void> | void;
}

const lacks = 'hidden by the test';

function hide(real: Capabilities, tracker: TrackerKind): Capabilities {
  return {
    ...real,
    'light-suspend-point': lacks,
    'cow-snapshot': lacks,
    ...(tracker === 'content' && { 'log-dirty': lacks }),
  };
}

/** The host behind a face of its own; everything that is not hidden goes through. */
export function plainHost(host: EmbeddedHost, { tracker, before }: PlainHostOptions): Host {
  const refuse = (): Promise<never> => Promise.reject(new DormouseError('HOST_LACKS', lacks));
  const instead: Partial<Record<string | symbol, Method>> = {
    capabilities: async () => hide(await host.capabilities(), tracker),
    snapshot: refuse,
    ...(tracker === 'content' && { tracker: refuse }),
  };
  return new Proxy<Host>(host, {
    get: (_, name) => {
      const own: unknown = instead[name] ?? Reflect.get(host, name, host);
      if (typeof own !== 'function') return own;
      const method = (own as Method).bind(host) as (...args: unknown[]) => unknown;
      if (before === undefined) return method;
      // Called at once where there is nothing to wait for, as the host itself would be.
      return async (...args: unknown[]) => {
        const waited = before(name as keyof Host);
        if (waited) await waited;
        return method(...args);
      };
    },
  });
}

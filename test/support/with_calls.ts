import type { Host } from '../../src/host/contract.js';

/** The host, with some of its calls replaced. */
export function withCalls(host: Host, calls: Partial<Host>): Host {
  return new Proxy(host, {
    get(target, key) {
      const value: unknown = Reflect.get(calls, key) ?? Reflect.get(target, key, target);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

/** A host whose calls are counted, those of a rewriter that it gives included, so that something can happen at each of them. */
import type { Host, Lease, Rewriter, RewritePart } from '../../src/host/contract.js';

/** Called before and after each call, with its number from 0 on. What it throws, the call throws. */
export type AtStep = (number: number, when: 'before' | 'after', name: string) => Promise<void> | void;

export class Steps {
  calls = 0;
  readonly names: string[] = [];

  constructor(private readonly at: AtStep) {}

  async around<T>(name: string, call: () => Promise<T>): Promise<T> {
    const number = this.calls++;
    this.names.push(name);
    const waited = this.at(number, 'before', name);
    // Calls that are made at once must reach the host in their order.
    if (waited) await waited;
    const answer = await call();
    await this.at(number, 'after', name);
    return answer;
  }
}

type Method = (...args: unknown[]) => Promise<unknown>;

function counted<T extends object>(real: T, steps: Steps, instead: Readonly<Record<string, Method>> = {}): T {
  return new Proxy(real, {
    get: (_, name) => {
      const own: unknown = Reflect.get(real, name, real);
      if (typeof own !== 'function' || typeof name !== 'string') return own;
      // No call that waits for an answer.
      if (name === 'onEvent') return (own as Method).bind(real);
      const method: Method = (instead[name] ?? (own as Method)).bind(real);
      return (...args: unknown[]) => steps.around(name, () => method(...args));
    },
  });
}

export function steppingHost(host: Host, at: AtStep): { host: Host; steps: Steps } {
  const steps = new Steps(at);
  const rewrite = async (lease: Lease, part?: RewritePart): Promise<Rewriter> => {
    if (!host.rewrite) throw new Error('the host has no rewrite');
    return counted(await host.rewrite(lease, part), steps);
  };
  return { host: counted(host, steps, { rewrite: rewrite as unknown as Method }), steps };
}

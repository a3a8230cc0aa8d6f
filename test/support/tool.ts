/**
 * A tool that can be killed: does one thing to the domain of the host `test`, prints `ready`, and then waits.
 * usage: tool.js open | HOLD DOMAIN | save DESTROY-OR-PAUSE DOMAIN IMAGE, which stops where the image has its name
 */
import { randomUUID } from 'node:crypto';
import { openEmbeddedHost } from '../../src/host/open/open_host.js';
import type { EmbeddedHost } from '../../src/host/embedded/host.js';
import type { Lease } from '../../src/host/contract.js';
import { save } from '../../src/save/save.js';

type Hold = (host: EmbeddedHost, lease: Lease) => Promise<unknown>;

export const holds: Readonly<Record<string, Hold>> = {
  lease: () => Promise.resolve(),
  pause: (host, lease) => host.holdPaused(lease),
  suspend: (host, lease) => host.suspend(lease, 10_000),
  snapshot: (host, lease) => host.snapshot(lease),
  tracker: (host, lease) => host.tracker(lease),
  everything: async (host, lease) => {
    await host.tracker(lease);
    await host.snapshot(lease);
    await host.suspend(lease, 10_000);
    await host.holdPaused(lease);
    await host.holdPaused(lease);
    await host.xenstore.watch('/local', () => undefined);
  },
};

/** Gives half of the frames that the host has to a domain that is never finished. */
async function halfBuild(host: EmbeddedHost): Promise<void> {
  const { freeBytes } = await host.status();
  const nrPfns = Math.floor(freeBytes / 4096 / 2);
  const { builder } = await host.build({
    name: 'half-built',
    uuid: randomUUID(),
    type: 'pv',
    maxMemoryKib: nrPfns * 4,
    vcpus: 2,
    config: '{}',
  });
  await builder.setGeometry({ nrPfns, guestWidth: 8, p2mFrames: [], p2mGeneration: 0 });
  await builder.populate([[0, nrPfns]]);
  const memory = await builder.openMemory();
  process.stdout.write(`memory ${memory.handle}\n`);
}

/** A save that comes as far as the image, and never to what is to become of the domain. */
async function saveHalfway(host: EmbeddedHost, then: string, selector: string, path: string): Promise<void> {
  await new Promise<never>((_, failed) => {
    const standing = (): Promise<never> => {
      process.stdout.write('ready\n');
      return new Promise(() => undefined);
    };
    Object.assign(host, { pause: standing, destroy: standing });
    save(host, selector, path, { then: then === 'pause' ? 'pause' : 'destroy' }).catch(failed);
    setInterval(() => undefined, 1000);
  });
}

async function main([what = '', selector = '', ...more]: string[]): Promise<void> {
  const host = await openEmbeddedHost('test');
  if (what === 'build') await halfBuild(host);
  else if (what === 'save') await saveHalfway(host, selector, more[0] ?? '', more[1] ?? '');
  else if (what !== 'open') {
    const { domid } = await host.find(selector);
    await holds[what]?.(host, await host.acquire(domid, 'save'));
  }
  process.stdout.write('ready\n');
  setInterval(() => undefined, 1000);
}

await main(process.argv.slice(2));

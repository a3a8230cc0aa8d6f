/** A guest that comes over a stream of ours: decoded and placed, beside what bounds a restore. */
import { closeSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { FdSource } from '../src/helper/fd_source.js';
import type { DomainSpec } from '../src/host/contract.js';
import type { EmbeddedHost } from '../src/host/embedded/host.js';
import { restoreFrames } from '../src/transfer/receive.js';
import { streamDomain } from '../src/transfer/send.js';
import { populatedTarget, silentReceiver } from '../test/support/helper_target.js';

/** Writes the guest into a file as a stream and ends it; returns what its successor is to be. */
async function streamed(host: EmbeddedHost, name: string, path: string): Promise<DomainSpec> {
  const info = await host.find(name);
  const spec = { ...info, config: await host.config(info.domid) };
  const lease = await host.acquire(info.domid, 'save');
  const fd = openSync(path, 'wx');
  try {
    await streamDomain({
      ...{ host, lease, info, fd, format: 'frames', live: false, options: {} },
      suspend: () => host.suspend(lease, 10_000),
    });
    await host.destroy(info.domid);
  } finally {
    closeSync(fd);
    await lease.release();
  }
  return spec;
}

/** Seconds from the first page to the last one, of a guest whose every pfn has a frame; it runs then. */
export async function receiveRound(host: EmbeddedHost, name: string, dir: string): Promise<number> {
  const path = join(dir, 'stream');
  const spec = await streamed(host, name, path);
  const { lease, builder } = await host.build(spec);
  // Giving frames is the host's work.
  const target = populatedTarget(builder, spec.maxMemoryKib / 4);
  const fd = openSync(path, 'r');
  try {
    await target.setGeometry({ nrPfns: 1, guestWidth: 8, p2mFrames: [], p2mGeneration: 0 });
    const begun = performance.now();
    const source = new FdSource(fd);
    const { signal } = new AbortController();
    await restoreFrames({ builder: target, source, receiver: silentReceiver, signal });
    return (performance.now() - begun) / 1000;
  } finally {
    closeSync(fd);
    rmSync(path);
    await lease.release();
    await host.unpause(builder.domid);
  }
}

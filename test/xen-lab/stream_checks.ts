/**
 * Run in dom0: node stream_checks.js DOMAIN FILE. Streams a domain while it runs, and once more when it stands suspended: the
 * two must hold the same of every page. It goes on then. Prints one line of JSON, with the pages that differ.
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync, rmSync } from 'node:fs';
import { streamDomain } from '../../src/transfer/send.js';
import { openXenHost } from '../../src/host/xen/host.js';
import { ByteSource } from '../../src/xenstream/byte_source.js';
import { readFrames } from '../../src/xenstream/frames/reader.js';
import { closeWorkers } from '../../src/worker/pool.js';

const timeoutMs = 120_000;

/** What a stream says of each page last: class, type and a hash of its content. */
async function held(path: string): Promise<{ pages: Map<number, string>; listed: number }> {
  const pages = new Map<number, string>();
  let listed = 0;
  const source = await ByteSource.open(path);
  await readFrames(source, {
    begin: () => undefined,
    pages: (descs, bodies) => {
      let at = 0;
      for (const desc of descs) {
        const kind = Number(desc >> 56n);
        const hasBody = (kind & 0xf) === 1 || (kind & 0xf) === 3;
        const body = bodies.subarray(at, at + (hasBody ? 4096 : 0));
        at += body.length;
        const hash = hasBody ? createHash('sha1').update(body).digest('hex') : '';
        pages.set(Number(desc & ((1n << 52n) - 1n)), `${kind.toString(16)} ${hash}`);
      }
      listed += descs.length;
    },
    end: () => undefined,
  });
  await source.close();
  return { pages, listed };
}

const [, , name = '', path = ''] = process.argv;
const host = await openXenHost();
const info = await host.find(name);
const lease = await host.acquire(info.domid, 'save');
const files = [`${path}.live`, `${path}.standing`] as const;
try {
  for (const file of files) {
    const fd = openSync(file, 'wx');
    const live = file === files[0];
    await streamDomain({
      ...{ host, lease, info, fd, format: 'frames', live, options: {} },
      suspend: () => (live ? host.suspend(lease, timeoutMs) : Promise.resolve()),
    });
    closeSync(fd);
  }
  await host.resumeInPlace(lease);
} finally {
  await lease.release();
}
const [live, standing] = [await held(files[0]), await held(files[1])];
const differing = [...standing.pages].filter(([pfn, what]) => live.pages.get(pfn) !== what);
const shown = differing.slice(0, 50).map(([pfn, what]) => [pfn.toString(16), live.pages.get(pfn), what]);
process.stdout.write(
  `${JSON.stringify({
    ...{ pages: standing.pages.size, listedLive: live.listed, differing: differing.length, shown },
  })}\n`,
);
for (const file of files) rmSync(file);
await host.close();
await closeWorkers();

/** A process or a thread of its own that writes images, for tests that kill it or run several. */
import { parentPort, workerData } from 'node:worker_threads';
import { asDormouseError } from '../../src/errors.js';
import { nativeImage } from '../../src/image/native.js';
import { ImageWriter } from '../../src/image/writer.js';
import { append, desc, manifestFor, page, random, type TestPage } from './images.js';
import type { WriterHandle } from '../../src/handle.js';

const nrPfns = 2800;

/** Not compressible, and another one for each pfn. */
function noise(pfn: number): TestPage {
  const next = random(pfn + 1);
  const body = Buffer.alloc(4096);
  for (let i = 0; i < body.length; i += 4) body.writeUInt32LE(next(0xffff_ffff), i);
  return { pfn, pageClass: 'data', type: 0, body };
}

async function write(path: string, upTo: number): Promise<ImageWriter> {
  const writer = await ImageWriter.create(path, { nrPfns, lanes: 1, consistency: 'suspend-point' });
  for (let pfn = 0; pfn < upTo; pfn++) append(writer, 0, [noise(pfn)]);
  return writer;
}

async function main(verb: string | undefined, path: string): Promise<void> {
  if (verb === 'hang') {
    const writer = await write(path, 2000);
    process.stdout.write(`half way, ${writer.storedBytes()} bytes\n`);
    setTimeout(() => process.exit(1), 20_000);
    return;
  }
  try {
    const writer = await write(path, nrPfns);
    await writer.commit(manifestFor(nrPfns, writer.counts()));
    process.stdout.write('done\n');
  } catch (thrown) {
    process.stdout.write(`${asDormouseError(thrown).code}\n`);
  }
}

/** Every `lanes`th group of 50 pages, from pfn-seeded pages, through the handle alone. */
function work(data: { handle: WriterHandle; lane: number; lanes: number; nrPfns: number }): void {
  for (let first = data.lane * 50; first < data.nrPfns; first += data.lanes * 50) {
    const pages = Array.from({ length: Math.min(50, data.nrPfns - first) }, (_, i) =>
      page(first + i, random(first + i)),
    );
    const bodies = Buffer.concat(pages.flatMap((p) => (p.body ? [p.body] : [])));
    nativeImage().append(data.handle, data.lane, BigUint64Array.from(pages.map(desc)), bodies);
  }
}

if (parentPort) work(workerData as Parameters<typeof work>[0]);
else await main(process.argv[2], process.argv[3] ?? '');

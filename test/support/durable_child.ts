/** Writes an image through two lanes to the path it is given, and prints `done` or the code of what went wrong. */
import { randomBytes } from 'node:crypto';
import { asDormouseError } from '../../src/errors.js';
import { ImageWriter } from '../../src/image/writer.js';
import { append, manifestFor, type TestPage } from './images.js';

const [path = ''] = process.argv.slice(2);
const perLane = Number(process.env.DURABLE_PAGES ?? 1300);
const pages = (first: number): TestPage[] =>
  Array.from({ length: perLane }, (_, i) => ({
    ...{ pfn: first + i, pageClass: 'data', type: 0 },
    body: randomBytes(4096),
  }));
const nrPfns = 2 * perLane;
try {
  const writer = await ImageWriter.create(path, { nrPfns, lanes: 2, consistency: 'suspend-point' });
  for (const lane of [0, 1]) append(writer, lane, pages(lane * perLane));
  await writer.commit(manifestFor(nrPfns, writer.counts()));
  process.stdout.write('done');
} catch (thrown) {
  process.stdout.write(asDormouseError(thrown).code);
}

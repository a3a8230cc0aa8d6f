/** The digest of an image, kept by runs, against the same pages put into a table of every pfn. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageReader } from '../../src/image/reader.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import { steps } from '../../src/worker/steps.js';
import { body, page, random, tempDir, writeImage } from '../support/images.js';

const zeroes = Buffer.alloc(pageBytes);

test('both are the same, also where pages are blanked or replaced afterwards', async (t) => {
  const dir = tempDir(t);
  for (let seed = 1; seed <= 40; ++seed) {
    const next = random(seed);
    const nrPfns = 1 + next(300);
    const pages = Array.from({ length: nrPfns }, (_, pfn) => page(pfn, next));
    const path = join(dir, String(seed));
    await writeImage(path, nrPfns, [pages], { lanes: 1 });
    const reader = await ImageReader.open(path, { lanes: 1 });
    const [sparse, dense] = [steps().digestCreateOfImage(reader.handle), steps().digestCreate(nrPfns)];
    steps().digestImageStep(reader.handle, sparse, 0, 0, reader.nrChunks);
    for (const { pfn, pageClass, type, body: content } of pages) {
      steps().digestSetPage(dense, pfn, type, content ?? zeroes);
      if (content === null && pageClass !== 'zero') steps().digestBlank(dense, pfn);
    }
    for (let i = next(20); i > 0; --i) {
      const [pfn, other] = [next(nrPfns), next(2) === 0 ? body(next) : null];
      for (const table of [sparse, dense])
        if (other) steps().digestSetPage(table, pfn, 0, other);
        else steps().digestBlank(table, pfn);
    }
    assert.equal(steps().digestFinish(sparse), steps().digestFinish(dense), `seed ${seed}`);
    reader.close();
  }
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cellsOf, heatMap } from '../../src/render/heat_map.js';
import { random } from '../support/images.js';

test('each pfn counts in its cell', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed);
    const nrPfns = 1 + next(seed % 2 === 0 ? 5000 : 100_000);
    const set = new Uint8Array(nrPfns);
    const runs: [number, number][] = [];
    for (let pfn = next(50); pfn < nrPfns;) {
      const count = Math.min(1 + next(700), nrPfns - pfn);
      runs.push([pfn, count]);
      set.fill(1, pfn, pfn + count);
      pfn += count + 1 + next(300);
    }
    const { perCell, cells } = cellsOf(nrPfns, runs);
    assert.ok(cells.length <= 4096 && perCell * (cells.length - 1) < nrPfns, `seed ${seed}`);
    const counted = cells.map((_, i) =>
      set.subarray(i * perCell, (i + 1) * perCell).reduce((sum, one) => sum + one, 0),
    );
    assert.deepEqual(cells, counted, `seed ${seed}`);
  }
});

test('the picture has a cell for each that holds such pages, and no markup of others', () => {
  const svg = heatMap('<b> & "\u202e', 4096 * 3 + 1, [
    [0, 4],
    [12_288, 1],
  ]);
  const titles = [...svg.matchAll(/<title>([^<]*)<\/title>/gu)].map(([, text]) => text);
  assert.deepEqual(titles, ['pfns 0-3: 4 of 4', 'pfns 12288-12288: 1 of 1']);
  assert.ok(svg.startsWith('<svg ') && svg.endsWith('</svg>\n'));
  assert.ok(svg.includes('&#60;b&#62; &#38; &#34;?'), svg.slice(0, 400));
  assert.equal(svg.match(/fill="rgb\(128,0,24\)"/gu)?.length, 2, 'all of a cell is darkest');
});

test('a vast pfn space costs no more', () => {
  const svg = heatMap('vast', 2 ** 32, [[0, 2 ** 32]]);
  assert.equal(svg.match(/<title>/gu)?.length, 4096);
});

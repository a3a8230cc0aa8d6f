import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32, inflateSync } from 'node:zlib';
import { cellsOf, heatMap, heatMapPng } from '../../src/render/heat_map.js';
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

interface Decoded {
  readonly width: number;
  readonly height: number;
  readonly title: string;
  readonly pixel: (x: number, y: number) => string;
}

/** A PNG of that one kind, each chunk held against its sum. */
function decodePng(file: Buffer): Decoded {
  assert.equal(file.subarray(0, 8).toString('latin1'), '\x89PNG\r\n\x1a\n');
  const chunks: [string, Buffer][] = [];
  for (let at = 8; at < file.length;) {
    const end = at + 8 + file.readUInt32BE(at);
    assert.equal(file.readUInt32BE(end), crc32(file.subarray(at + 4, end)), 'the sum of a chunk');
    chunks.push([file.toString('latin1', at + 4, at + 8), file.subarray(at + 8, end)]);
    at = end + 4;
  }
  assert.deepEqual(
    chunks.map(([kind]) => kind),
    ['IHDR', 'tEXt', 'IDAT', 'IEND'],
  );
  const [head, text, data, end] = chunks.map(([, body]) => body);
  assert.ok(head && text && data && end?.length === 0);
  assert.deepEqual([...head.subarray(8)], [8, 2, 0, 0, 0]);
  const [width, height] = [head.readUInt32BE(0), head.readUInt32BE(4)];
  const rows = inflateSync(data);
  assert.equal(rows.length, height * (1 + 3 * width));
  for (let y = 0; y < height; y++) assert.equal(rows[y * (1 + 3 * width)], 0, 'no filter');
  const pixel = (x: number, y: number): string => {
    const at = y * (1 + 3 * width) + 1 + 3 * x;
    return `rgb(${[...rows.subarray(at, at + 3)].join(',')})`;
  };
  return { width, height, title: text.toString('latin1'), pixel };
}

test('the PNG has the colours of the SVG, in each pixel', () => {
  for (const [nrPfns, runs] of [
    [1, [[0, 1]]],
    [
      100,
      [
        [3, 60],
        [99, 1],
      ],
    ],
    [
      4096 * 3 + 1,
      [
        [0, 4],
        [200, 700],
        [12_288, 1],
      ],
    ],
  ] as const) {
    const svg = heatMap('t', nrPfns, runs);
    const drawn = new Map(
      [...svg.matchAll(/<rect x="(\d+)" y="(\d+)" [^>]*fill="(rgb[^"]*)"><title>/gu)].map(
        ([, x, y, fill]) => [((Number(y) - 48) / 10) * 64 + (Number(x) - 96) / 10, fill] as const,
      ),
    );
    assert.ok(drawn.size > 0);
    const { width, height, title, pixel } = decodePng(heatMapPng('t\u00fc\n', nrPfns, runs));
    const cells = cellsOf(nrPfns, runs).cells.length;
    assert.deepEqual([width, height, title], [512, Math.ceil(cells / 64) * 8, 'Title\0t??']);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const cell = Math.floor(y / 8) * 64 + Math.floor(x / 8);
        const ground = cell < cells ? 'rgb(238,238,238)' : 'rgb(255,255,255)';
        assert.equal(pixel(x, y), drawn.get(cell) ?? ground, `${x}, ${y} of ${nrPfns}`);
      }
  }
});

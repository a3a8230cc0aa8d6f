/** A picture of a pfn space as SVG or PNG: a cell for so many neighbouring pfns, the darker the more of them are meant. */
import type { Buffer } from 'node:buffer';
import type { PfnRun } from '../pfn/pfn_runs.js';
import { type Colour, Picture } from './png.js';
import { counted, formatCount, printable } from './units.js';

const columns = 64;
const mostRows = 64;
const cellPx = 10;
const leftPx = 96;
const topPx = 48;

/** How many of the pfns of each cell are in the runs, of which each pfn is in one at most. */
export function cellsOf(
  nrPfns: number,
  runs: Iterable<PfnRun>,
): { readonly perCell: number; readonly cells: readonly number[] } {
  const perCell = Math.max(1, Math.ceil(nrPfns / (columns * mostRows)));
  const cells = new Array<number>(Math.ceil(nrPfns / perCell)).fill(0);
  for (const [first, count] of runs)
    for (let pfn = first; pfn < first + count;) {
      const cell = Math.floor(pfn / perCell);
      const end = Math.min(first + count, (cell + 1) * perCell);
      cells[cell] = (cells[cell] ?? 0) + (end - pfn);
      pfn = end;
    }
  return { perCell, cells };
}

/** From pale to dark; one page of many is still seen. */
function colourOf(share: number): Colour {
  const [pale, dark] = [
    [255, 224, 168],
    [128, 0, 24],
  ] as const;
  const at = Math.sqrt(share);
  const mixed = (i: 0 | 1 | 2): number => Math.round(pale[i] + (dark[i] - pale[i]) * at);
  return [mixed(0), mixed(1), mixed(2)];
}

const escaped = (text: string): string =>
  printable(text).replace(/[<>&"']/gu, (found) => `&#${found.codePointAt(0)};`);

const textAt = (x: number, y: number, text: string): string =>
  `<text x="${x}" y="${y}">${escaped(text)}</text>`;

/** The whole file. Of cells without such pages only the ground is drawn. */
export function heatMap(title: string, nrPfns: number, runs: Iterable<PfnRun>): string {
  const { perCell, cells } = cellsOf(nrPfns, runs);
  const rows = Math.ceil(cells.length / columns);
  const [width, height] = [leftPx + columns * cellPx + 16, topPx + rows * cellPx + 16];
  const drawn = cells.flatMap((pages, i) => {
    if (pages === 0) return [];
    const first = i * perCell;
    const room = Math.min(perCell, nrPfns - first);
    const [x, y] = [leftPx + (i % columns) * cellPx, topPx + Math.floor(i / columns) * cellPx];
    const says = `pfns ${first}-${first + room - 1}: ${pages} of ${room}`;
    return [
      `<rect x="${x}" y="${y}" width="${cellPx}" height="${cellPx}" fill="rgb(${colourOf(pages / room).join(',')})"><title>${says}</title></rect>`,
    ];
  });
  const labels = Array.from({ length: Math.ceil(rows / 8) }, (_, i) =>
    textAt(8, topPx + (8 * i + 1) * cellPx - 1, formatCount(8 * i * columns * perCell)),
  );
  const ground = cells.length - columns * (rows - 1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    textAt(8, 18, title),
    textAt(8, 34, `a cell is ${counted(perCell, 'pfn')}; left: the first pfn of the row`),
    `<rect x="${leftPx}" y="${topPx}" width="${columns * cellPx}" height="${(rows - 1) * cellPx}" fill="#eee"/>`,
    `<rect x="${leftPx}" y="${topPx + (rows - 1) * cellPx}" width="${ground * cellPx}" height="${cellPx}" fill="#eee"/>`,
    ...labels,
    ...drawn,
    '</svg>\n',
  ].join('\n');
}

const grey: Colour = [238, 238, 238];
const pngCellPx = 8;

/** The cells alone, from the top left; a picture of pixels has the title as its text, and no letters. */
export function heatMapPng(title: string, nrPfns: number, runs: Iterable<PfnRun>): Buffer {
  const { perCell, cells } = cellsOf(nrPfns, runs);
  const picture = new Picture(columns * pngCellPx, Math.ceil(cells.length / columns) * pngCellPx);
  for (const [i, pages] of cells.entries()) {
    const [x, y] = [(i % columns) * pngCellPx, Math.floor(i / columns) * pngCellPx];
    const room = Math.min(perCell, nrPfns - i * perCell);
    picture.square(x, y, pngCellPx, pages === 0 ? grey : colourOf(pages / room));
  }
  // PNG's text is Latin-1.
  return picture.encode(printable(title).replace(/[^ -~]/gu, '?'));
}

/** A small image that is made to say that it is of many pages. */
import { FOOTER, HEADER, MAP_RUN_SIZE, STORED_FLAG } from '../../src/image/format.js';
import { decodeManifest, encodeManifest, type Manifest } from '../../src/image/manifest.js';
import { classNumber } from '../../src/pfn/counts.js';
import { pageType } from '../../src/pfn/page_type.js';
import { put, putTogether, takeApart } from './forge.js';
import type { TestPage } from './images.js';

/** A page of data, then zeroes to the end. */
export const twoPages: TestPage[] = [
  { pfn: 0, pageClass: 'data', type: 0, body: Buffer.alloc(4096, 1) },
  { pfn: 1, pageClass: 'zero', type: 0, body: null },
];

type Blank = 'zero' | 'noFrame';
const typeOf = { zero: 0, noFrame: pageType.xtab } as const;

/** The map of such an image in a block that is not compressed: a page of data, then runs of blank ones. */
function mapOf(nrPfns: number, blank: Blank): Buffer {
  const map = Buffer.alloc(8 + 2 * MAP_RUN_SIZE);
  map.writeUInt32LE(STORED_FLAG + 2 * MAP_RUN_SIZE, 0);
  map.writeUInt32LE(2 * MAP_RUN_SIZE, 4);
  map.writeUInt32LE(1, 8);
  map.writeUInt8(1, 8 + 12);
  map.writeUInt32LE(nrPfns - 1, 8 + MAP_RUN_SIZE);
  map.writeUInt8(classNumber(blank), 8 + MAP_RUN_SIZE + 12);
  map.writeUInt8(typeOf[blank], 8 + MAP_RUN_SIZE + 13);
  return map;
}

/** `image` is of `twoPages`. Every checksum is right again; nobody signed it. */
export function grown(
  image: Buffer,
  nrPfns: number,
  blank: Blank = 'zero',
  change: (manifest: Manifest) => Manifest = (manifest) => manifest,
): Buffer {
  const parts = takeApart(image);
  const { header, footer, regions } = parts;
  const manifest = decodeManifest(regions.manifest);
  const pages = { ...manifest.pages, zero: 0, [blank]: nrPfns - 1 };
  const geometry = { ...manifest.geometry, nrPfns };
  regions.manifest = encodeManifest(change({ ...manifest, pages, geometry }));
  regions.pageMap = mapOf(nrPfns, blank);
  put(header, HEADER.nrPfns, nrPfns);
  put(footer, FOOTER.nrPfns, nrPfns);
  put(footer, FOOTER.pageMapRuns, 2);
  for (const name of ['zero', 'noFrame'] as const)
    put(footer, [FOOTER.classCounts[0] + 8 * classNumber(name), 8], pages[name]);
  return putTogether(parts);
}

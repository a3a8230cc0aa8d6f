/**
 * Light checkpoints held against the guest's memory, run in dom0: node content_checks.js REQUEST, which is JSON. It is run with
 * oracle/hold_pauses.c preloaded: when each pause begins and before it ends it is written down what the guest's memory is; every page of
 * the image must be that. Prints one line of JSON a checkpoint.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync, readSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpoint } from '../../src/checkpoint/checkpoint.js';
import { openXenHost } from '../../src/host/xen/host.js';
import { ImageReader } from '../../src/image/reader.js';
import { random } from './random.js';

export interface ContentRequest {
  readonly guest: string;
  readonly times: number;
  readonly seed: number;
  /** Where images are made, and the reference is: content.reference. */
  readonly dir: string;
  /** Sizes between which the guest balloons meanwhile. */
  readonly balloonMib?: readonly [low: number, high: number];
}

/** A page of the image that is not what the guest's memory was. */
export interface Difference {
  readonly pfn: string;
  readonly pageClass: string;
  readonly type: number;
  /** First byte that differs, and eight bytes from there on, in the image and in memory; null where one has no page. */
  readonly at: number | null;
  readonly image: string;
  readonly memory: string;
}

export interface ContentSeen {
  readonly pages: number;
  /** Shared info and grant table: pages of Xen's own, which no image holds. */
  readonly pagesOfXen: number;
  /** By backends, which go on: such a page may be in the image as it was before or after. */
  readonly writtenInPause: number;
  readonly copiedPages: number;
  readonly pauseMs: number;
  readonly differing: number;
  /** The first of them. */
  readonly shown: readonly Difference[];
}

const shownMax = 40;
const recordBytes = 8 + 4096;

interface Reference {
  readonly pfn: number;
  readonly type: number;
  readonly page: Buffer;
}

function* readReference(path: string): Generator<Reference> {
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(1024 * recordBytes);
    for (let at = 0, { size } = fstatSync(fd); at < size;) {
      const got = readSync(fd, buffer, 0, buffer.length, at);
      assert.equal(got % recordBytes, 0, 'the reference is cut off');
      for (let from = 0; from < got; from += recordBytes) {
        const head = buffer.readBigUInt64LE(from);
        const pfn = Number(head & ((1n << 60n) - 1n));
        yield { pfn, type: Number(head >> 60n), page: buffer.subarray(from + 8, from + recordBytes) };
      }
      at += got;
    }
  } finally {
    closeSync(fd);
  }
}

const chunksKept = 8;
const withBody = (desc: bigint): boolean => [1n, 3n].includes((desc >> 56n) & 0xfn);

/** The pages of an image, whose chunks are decoded once where their pages are asked for in about the order they were written. */
class ImagePages {
  readonly #chunks = new Map<number, (Buffer | null)[]>();

  constructor(readonly reader: ImageReader) {}

  /** By slot; null where a page has no body. */
  #chunk(index: number): (Buffer | null)[] {
    const known = this.#chunks.get(index);
    if (known) return known;
    const { descs, bodies } = this.reader.readChunk(0, index);
    let at = 0;
    const pages = [...descs].map((desc) => (withBody(desc) ? bodies.subarray(at, (at += 4096)) : null));
    this.#chunks.set(index, pages);
    const [oldest] = this.#chunks.keys();
    if (oldest !== undefined && this.#chunks.size > chunksKept) this.#chunks.delete(oldest);
    return pages;
  }

  page(pfn: number): Buffer {
    const { chunk, slot, pageClass } = this.reader.pageEntry(pfn);
    // Of a page of zeroes the map alone tells.
    if (pageClass === 'zero') return Buffer.alloc(4096);
    const page = this.#chunk(chunk)[slot];
    assert.ok(page, `pfn ${pfn} has a body`);
    return page;
  }
}

/** Shared info and grant table, which Xen keeps for the guest: they are no pages of an image. */
const ofXen = 15;
const withFrame = new Set(['data', 'zero', 'table']);

/** `begin` is the page when the pause began: backends may write to it until the end, and the image may have it from before or after. */
function difference(
  image: ImagePages,
  pfn: number,
  memory: Reference | null,
  begin?: Buffer,
): Difference | null {
  const { pageClass, type } = image.reader.pageEntry(pfn);
  const what = { pfn: `0x${pfn.toString(16)}`, pageClass, type };
  const none = { at: null, image: pageClass, memory: memory ? `type ${memory.type}` : 'no frame' };
  if (memory === null || memory.type === ofXen) return withFrame.has(pageClass) ? { ...what, ...none } : null;
  if (!withFrame.has(pageClass) || type !== memory.type) return { ...what, ...none };
  const page = image.page(pfn);
  if (page.equals(memory.page) || begin?.equals(page) === true) return null;
  const at = page.findIndex((byte, i) => byte !== memory.page[i]);
  const hex = (bytes: Buffer): string => bytes.toString('hex', at, at + 8);
  return { ...what, at, image: hex(page), memory: hex(memory.page) };
}

/** Every pfn that has a frame in either. */
async function compare(
  path: string,
  reference: string,
): Promise<Pick<ContentSeen, 'pages' | 'pagesOfXen' | 'writtenInPause'> & { differing: Difference[] }> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  const image = new ImagePages(reader);
  const differing: Difference[] = [];
  const add = (found: Difference | null): void => {
    if (found) differing.push(found);
  };
  const framed = new Set(
    reader.frameRuns().flatMap(([first, n]) => Array.from({ length: n }, (_, i) => first + i)),
  );
  try {
    let pages = 0;
    let pagesOfXen = 0;
    let writtenInPause = 0;
    const begins = readReference(`${reference}.begin`);
    for (const memory of readReference(`${reference}.end`)) {
      const begin = begins.next().value as Reference;
      assert.equal(begin.pfn, memory.pfn, 'a guest that stands still gains and loses no frame');
      if (!begin.page.equals(memory.page)) writtenInPause++;
      assert.ok(memory.pfn < reader.nrPfns, `pfn ${memory.pfn} is beyond the image`);
      framed.delete(memory.pfn);
      add(difference(image, memory.pfn, memory, begin.page));
      if (memory.type === ofXen) pagesOfXen++;
      else pages++;
    }
    for (const pfn of framed) add(difference(image, pfn, null));
    return { pages, pagesOfXen, writtenInPause, differing };
  } finally {
    reader.close();
  }
}

async function setMemory(guest: string, mib: number, afterMs: number): Promise<void> {
  await sleep(afterMs);
  await once(spawn('xl', ['mem-set', guest, String(mib)], { stdio: 'inherit' }), 'close');
}

const request = JSON.parse(process.argv[2] ?? '') as ContentRequest;
const { guest, times, dir, balloonMib } = request;
const next = random(request.seed);
const [image, reference] = [`${dir}/content.image`, `${dir}/content.reference`];
const host = await openXenHost();
for (let i = 0; i < times; i++) {
  await sleep(next() * 500);
  const afterMs = next() * 1500;
  const size = balloonMib?.[i % 2];
  const ballooning = size === undefined ? undefined : setMemory(guest, size, afterMs);
  const { copiedPages, pauseMs } = await checkpoint(host, guest, image, { mode: 'light' });
  await ballooning;
  const { differing, ...counted } = await compare(image, reference);
  const shown = differing.slice(0, shownMax);
  const seen: ContentSeen = { ...counted, copiedPages, pauseMs, differing: differing.length, shown };
  process.stdout.write(`${JSON.stringify(seen)}\n`);
  for (const file of [image, `${reference}.begin`, `${reference}.end`]) rmSync(file);
}
await host.close();
process.exit(0);

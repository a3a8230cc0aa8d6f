/** Chains whose images store pages as deltas: each image is its pages, whatever failed before it and whatever was removed since. */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestImage } from '../../src/digest/digest.js';
import { DeltaBases } from '../../src/image/delta_bases.js';
import { CHUNK_KIND_DELTAS } from '../../src/image/format.js';
import { ImageFile } from '../../src/image/image_file.js';
import { ImageReader } from '../../src/image/reader.js';
import { verifyImage } from '../../src/image/verify.js';
import { type CommittedImage, ImageWriter, parentOf } from '../../src/image/writer.js';
import { type Descent, Lineage } from '../../src/store/lineage.js';
import { pageBytes } from '../../src/pfn/page_words.js';
import {
  append,
  manifestFor,
  pvhDomain,
  random,
  tempDir,
  writeImage,
  type TestPage,
} from '../support/images.js';

const nrPfns = 200;
const lanes = 2;

type Memory = readonly Buffer[];

/** Pages that LZ4 shrinks to some 1,500 bytes. */
function wholePage(next: (below: number) => number): Buffer {
  const page = Buffer.alloc(pageBytes);
  for (let at = 0; at < pageBytes; at += 8) page.writeUInt16LE(next(1 << 14), at);
  return page;
}

function changed(page: Buffer, next: (below: number) => number): Buffer {
  if (next(12) === 0) return next(2) === 0 ? Buffer.alloc(pageBytes) : wholePage(next);
  const now = Buffer.from(page);
  for (let i = 0; i <= next(4); i++) now.writeUInt32LE(next(0xffff_ffff), 4 * next(1024));
  return now;
}

const data = (pfn: number, body: Buffer): TestPage =>
  body.equals(Buffer.alloc(pageBytes))
    ? { pfn, pageClass: 'zero', type: 0, body: null }
    : { pfn, pageClass: 'data', type: 0, body };

async function parentReader(path: string): Promise<ImageReader> {
  return await ImageReader.open(path, { lanes: 1 });
}

interface Written {
  readonly name: string;
  readonly memory: Memory;
  /** Of an image of these pages that needs no other. */
  readonly digest: string;
}

async function digestOf(memory: Memory, path: string): Promise<string> {
  await writeImage(path, nrPfns, [memory.map((body, pfn) => data(pfn, body))], {}, { domain: pvhDomain });
  const { digest } = await digestImage(path);
  rmSync(path);
  return digest;
}

class Chain {
  readonly images: Written[] = [];
  head: CommittedImage | null = null;

  constructor(
    readonly dir: string,
    readonly bases: DeltaBases,
    readonly next: (below: number) => number,
  ) {}

  async writer(name: string): Promise<ImageWriter> {
    const parent = this.head;
    const due = parent && (this.next(8) === 0 || (parent.sequence + 1) % 32 === 0);
    const open = due ? parentOf(await parentReader(parent.path)) : parent;
    return await ImageWriter.create(join(this.dir, name), {
      ...{ nrPfns, lanes, consistency: 'suspend-point', pageHashes: true, deltas: this.bases },
      ...(open && { parent: open, closesParent: true }),
      ...(due && { fullMap: true }),
    });
  }

  /** As the session of a guest does; some of them fail. */
  async point(number: number): Promise<void> {
    const { next } = this;
    const before = this.images.at(-1)?.memory;
    const memory = before ? [...before] : Array.from({ length: nrPfns }, () => wholePage(next));
    const touched = before
      ? Array.from({ length: 1 + next(40) }, () => next(next(4) === 0 ? nrPfns : 20))
      : [...memory.keys()];
    const name = `${number}.dormouse`;
    const writer = await this.writer(name);
    for (const pfn of touched) {
      // Some are stored again while the guest runs.
      for (let times = next(6) === 0 ? 2 : 1; times > 0; times--) {
        if (before) memory[pfn] = changed(memory[pfn] as Buffer, next);
        append(writer, next(lanes), [data(pfn, memory[pfn] as Buffer)]);
      }
    }
    if (before && next(5) === 0) {
      await writer.abandon();
      return;
    }
    this.head = await writer.commit(manifestFor(nrPfns, writer.counts(), { domain: pvhDomain }));
    this.images.push({ name, memory, digest: await digestOf(memory, join(this.dir, 'alone')) });
  }
}

async function deltaPages(path: string): Promise<number> {
  const file = await ImageFile.open(path);
  try {
    let pages = 0;
    const table = await file.region('chunkTable');
    for (let at = 0; at < table.length; at += 32) {
      const head = Buffer.alloc(16);
      await file.file.read(head, 0, 16, Number(table.readBigUInt64LE(at)));
      if (head[4] === CHUNK_KIND_DELTAS) pages += head.readUInt16LE(12);
    }
    return pages;
  } finally {
    await file.close();
  }
}

async function checkImage(dir: string, { name, memory, digest }: Written, verify: boolean): Promise<void> {
  const path = join(dir, name);
  const reader = await ImageReader.open(path, { lanes: 1, mapOnly: true });
  try {
    const all = reader.readPages([...memory.keys()]);
    memory.forEach((page, pfn) => {
      const found = all.subarray(pfn * pageBytes, (pfn + 1) * pageBytes);
      assert.ok(found.equals(page), `pfn ${pfn} of ${name}`);
    });
  } finally {
    reader.close();
  }
  assert.equal((await digestImage(path)).digest, digest, `${name}, by its chunks`);
  if (!verify) return;
  const { findings } = await verifyImage(path);
  assert.deepEqual(findings, [], name);
}

async function descentOf(dir: string, name: string): Promise<Descent | null> {
  const file = await ImageFile.open(join(dir, name));
  try {
    const { header, footer } = file;
    const needs = await file.ancestors();
    return { imageId: header.imageId, root: footer.root, mapKind: footer.mapKind, needs };
  } finally {
    await file.close();
  }
}

test('an image with deltas is its pages, and needs no more than it says', async (t) => {
  const seed = Number(process.env['DORMOUSE_SEED'] ?? randomInt(2 ** 31));
  t.diagnostic(`seed ${seed}`);
  let deltas = 0;
  for (let round = 0; round < 2; round++) {
    const dir = tempDir(t);
    const next = random(seed + round);
    const bases = new DeltaBases((round % 2 === 0 ? nrPfns : 100) * pageBytes);
    const chain = new Chain(dir, bases, next);
    for (let number = 0; number < 40; number++) await chain.point(number);
    bases.close();
    for (const image of chain.images) {
      await checkImage(dir, image, next(6) === 0);
      deltas += await deltaPages(join(dir, image.name));
    }
    let kept = chain.images;
    while (kept.length > 1) {
      kept = kept.filter(() => next(3) > 0);
      const lineage = new Lineage((name) => descentOf(dir, name));
      const needed = await lineage.closure(kept.map(({ name }) => name));
      for (const name of readdirSync(dir)) if (!needed.has(name)) rmSync(join(dir, name));
      for (const image of kept) await checkImage(dir, image, next(6) === 0);
    }
  }
  assert.ok(deltas > 400, `${deltas} pages were stored as deltas`);
});

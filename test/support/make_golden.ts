/**
 * Makes the golden images of this version of the format, test/golden/format-MAJOR.MINOR*.dormouse, that are not there yet,
 * and beside each the record of what reading it must give. Golden images are never made again. docs/image-format.md.
 */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/addon.js';
import { DeltaBases } from '../../src/image/delta_bases.js';
import { FORMAT_MAJOR, FORMAT_MINOR } from '../../src/image/format.js';
import { ImageReader } from '../../src/image/reader.js';
import { signedMessage, type SignRoot } from '../../src/image/signature.js';
import { writeIncrement } from './chains.js';
import { page, random, writeImage, type TestPage } from './images.js';

export interface GoldenRecord {
  imageId: string;
  root: string;
  storedBytes: number;
  nrChunks: number;
  /** Of the file's bytes. */
  sha256: string;
  consistency: string;
  /** Public key in hex; null where nobody signed. */
  signer: string | null;
  /** Names of the files it needs beside itself. */
  ancestors: string[];
  counts: Record<string, number>;
  /** The decoded manifest as JSON, bytes as hex. */
  manifest: unknown;
  /** Class, type and SHA-256 of the content of every page. */
  pages: string[];
}

/** Bytes as hex strings, so that a manifest can be compared as JSON. */
export const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, inner: unknown) => {
      const bytes = inner as { type?: unknown; data?: number[] } | null;
      return bytes?.type === 'Buffer' && bytes.data ? Buffer.from(bytes.data).toString('hex') : inner;
    }),
  );

export async function record(path: string): Promise<GoldenRecord> {
  const reader = await ImageReader.open(path, { lanes: 1 });
  try {
    const pages = Array.from({ length: reader.nrPfns }, (_, pfn) => {
      const { pageClass, type } = reader.pageEntry(pfn);
      const digest = createHash('sha256')
        .update(reader.readPages([pfn]))
        .digest('hex');
      return `${pageClass} ${type} ${digest}`;
    });
    const { imageId, root, storedBytes, nrChunks, counts, manifest, signer } = reader;
    return {
      ...{ imageId, root, storedBytes, nrChunks },
      sha256: createHash('sha256').update(readFileSync(path)).digest('hex'),
      consistency: reader.header.consistency,
      signer: signer?.key.toString('hex') ?? null,
      ancestors: reader
        .usedFiles()
        .slice(1)
        .map(({ name }) => name),
      counts: { ...counts },
      manifest: plain(manifest),
      pages,
    };
  } finally {
    reader.close();
  }
}

/** All golden images that there are, by the names of their files. */
export const goldenFolder = join(packageRoot, 'test/golden');

/** A few pages of every kind; most bodies are small, so that the files are. */
function pagesOf(seed: number): TestPage[] {
  const next = random(seed);
  return Array.from({ length: 64 }, (_, pfn) => page(pfn, next)).map((p, i) =>
    p.body && i % 8 > 0 ? { ...p, body: Buffer.alloc(4096, `page ${i} `) } : p,
  );
}

/** Of what is signed; the key is thrown away. */
function signOnce(): SignRoot {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519');
  const key = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  return (root) => ({ key, signature: sign(null, signedMessage(root), privateKey) });
}

/** Pages that LZ4 makes little of, and an image on theirs in which a few words of every third page differ. */
async function writeDeltas(path: string, wholePath: string): Promise<void> {
  const deltas = new DeltaBases();
  const next = random(19);
  const bodyOf = (): Buffer => Buffer.from(Uint16Array.from({ length: 2048 }, () => next(1 << 10)).buffer);
  const pages = Array.from({ length: 9 }, (_, pfn) => ({
    ...page(0, next),
    pfn,
    pageClass: 'data' as const,
    type: 0,
    body: bodyOf(),
  }));
  try {
    await writeImage(wholePath, 9, [pages], { pageHashes: true, deltas });
    const changed = pages.filter(({ pfn }) => pfn % 3 === 0);
    for (const { pfn, body } of changed) body.writeUInt32LE(~pfn >>> 0, 512 * pfn);
    await writeIncrement(path, wholePath, 9, changed, { pageHashes: true, deltas });
  } finally {
    deltas.close();
  }
}

/** By what follows the version in their names: each is made in the folder of those before it. */
const makers: Readonly<Record<string, (path: string, plainPath: string) => unknown>> = {
  '': (path) => {
    const pages = pagesOf(2026);
    return writeImage(path, 64, [pages.slice(0, 40), pages.slice(40), pages.slice(10, 12)]);
  },
  '-increment': (path, plainPath) => {
    const changed = pagesOf(7).filter(({ pfn }) => pfn % 9 === 0);
    return writeIncrement(path, plainPath, 64, changed, { pageHashes: true });
  },
  '-signed': (path) => writeImage(path, 64, [pagesOf(11)], { sign: signOnce() }),
  '-paused': (path) =>
    writeImage(path, 64, [pagesOf(13)], { consistency: 'paused' }, { consistency: 'paused' }),
  // Both at once: only who wrote the one has what the deltas of the other rest on.
  '-whole': (path) => writeDeltas(path.replace('-whole', '-deltas'), path),
  '-deltas': (path) => assert.ok(existsSync(path), path),
  '-stored': (path) => writeImage(path, 64, [pagesOf(17)], { compression: 'none', pageHashes: true }),
};

export const goldenNames = (version: string): string[] =>
  Object.keys(makers).map((what) => `format-${version}${what}.dormouse`);

if (process.argv[1]?.endsWith('make_golden.js')) {
  const named = `format-${FORMAT_MAJOR}.${FORMAT_MINOR}`;
  const at = (what: string): string => join(goldenFolder, `${named}${what}.dormouse`);
  for (const [what, make] of Object.entries(makers)) {
    if (existsSync(`${at(what)}.json`)) continue;
    await make(at(what), at(''));
    writeFileSync(`${at(what)}.json`, `${JSON.stringify(await record(at(what)), null, 2)}\n`);
    process.stdout.write(`${at(what)}\n`);
  }
}

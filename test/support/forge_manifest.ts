/** Changes the manifest of an image in its file, whose chunks stay where they are: what somebody without the key can do. */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { FOOTER, REGIONS, wholePages, type Field } from '../../src/image/format.js';
import { decodeFooter, rootOf, storedHash } from '../../src/image/frame.js';
import { decodeManifest, encodeManifest, type Manifest } from '../../src/image/manifest.js';
import { put } from './forge.js';
import { pageBytes } from '../../src/pfn/page_words.js';

function read(fd: number, offset: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  readSync(fd, bytes, 0, size, offset);
  return bytes;
}

const putHash = (footer: Buffer, [offset]: Field, of: Buffer): void => {
  footer.write(storedHash(of), offset, 'hex');
};

/** Every checksum and the root are right again; the image is signed by nobody. */
export function forgeManifest(path: string, change: (manifest: Manifest) => Manifest): void {
  const fd = openSync(path, 'r+');
  try {
    const size = fstatSync(fd).size;
    const [header, footer] = [read(fd, 0, pageBytes), read(fd, size - pageBytes, pageBytes)];
    const old = decodeFooter(footer);
    const { offset: at, size: oldSize } = old.regions.manifest;
    const bytes = encodeManifest(change(decodeManifest(read(fd, at, oldSize))));
    const manifest = Buffer.concat([bytes], wholePages(bytes.length));
    const restAt = old.regions.ancestors.offset;
    const rest = read(fd, restAt, size - pageBytes - restAt);
    const moved = manifest.length - (restAt - at);
    put(footer, FOOTER.manifestSize, bytes.length);
    for (const name of REGIONS.slice(1))
      put(footer, FOOTER[`${name}Offset`], old.regions[name].offset + moved);
    put(footer, FOOTER.fileSize, size + moved);
    createHash('sha256').update(manifest).digest().copy(footer, FOOTER.manifestHash[0]);
    for (const [offset, length] of [FOOTER.signerKey, FOOTER.signature])
      footer.fill(0, offset, offset + length);
    footer.write(rootOf(header, footer), FOOTER.root[0], 'hex');
    putHash(footer, FOOTER.checksum, footer.subarray(0, FOOTER.checksum[0]));
    const tail = Buffer.concat([manifest, rest, footer]);
    writeSync(fd, tail, 0, tail.length, at);
    ftruncateSync(fd, at + tail.length);
  } finally {
    closeSync(fd);
  }
}

export const withConfig =
  (config: string) =>
  (manifest: Manifest): Manifest => ({ ...manifest, domain: { ...manifest.domain, config } });

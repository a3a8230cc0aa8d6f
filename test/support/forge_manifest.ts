/** Changes the manifest of an image in its file, whose chunks stay where they are: what somebody without the key can do. */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { FOOTER, PAGE_SIZE, wholePages, type Field } from '../../src/image/format.js';
import { decodeFooter, storedHash } from '../../src/image/frame.js';
import { decodeManifest, encodeManifest, type Manifest } from '../../src/image/manifest.js';
import { put } from './forge.js';

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
    const [header, footer] = [read(fd, 0, PAGE_SIZE), read(fd, size - PAGE_SIZE, PAGE_SIZE)];
    const old = decodeFooter(footer);
    const bytes = encodeManifest(change(decodeManifest(read(fd, old.manifestOffset, old.manifestSize))));
    const manifest = Buffer.concat([bytes], wholePages(bytes.length));
    const rest = read(fd, old.chunkTableOffset, size - PAGE_SIZE - old.chunkTableOffset);
    const moved = manifest.length - (old.chunkTableOffset - old.manifestOffset);
    put(footer, FOOTER.manifestSize, bytes.length);
    put(footer, FOOTER.chunkTableOffset, old.chunkTableOffset + moved);
    put(footer, FOOTER.pageMapOffset, old.pageMapOffset + moved);
    put(footer, FOOTER.fileSize, size + moved);
    putHash(footer, FOOTER.manifestHash, manifest);
    for (const [offset, length] of [FOOTER.signerKey, FOOTER.signature])
      footer.fill(0, offset, offset + length);
    const root = createHash('sha256').update(header).update(manifest).update(rest);
    root.update(footer.subarray(0, FOOTER.root[0])).digest().copy(footer, FOOTER.root[0]);
    putHash(footer, FOOTER.checksum, footer.subarray(0, FOOTER.checksum[0]));
    const tail = Buffer.concat([manifest, rest, footer]);
    writeSync(fd, tail, 0, tail.length, old.manifestOffset);
    ftruncateSync(fd, old.manifestOffset + tail.length);
  } finally {
    closeSync(fd);
  }
}

export const withConfig =
  (config: string) =>
  (manifest: Manifest): Manifest => ({ ...manifest, domain: { ...manifest.domain, config } });
